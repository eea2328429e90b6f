"""What one attempt to send a batch came to."""

from dataclasses import dataclass
from typing import Protocol

from sightline_processors.export.reasons import Signal


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint acknowledged the batch; it is never sent again.

    Attributes:
        rejected: How many items it said it did not take, 0 or more.
    """

    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Retry:
    """The endpoint did not take the batch, and may take it later.

    Attributes:
        reason: What the items are dropped for when the deadline passes.
        after_seconds: How long the endpoint asked to wait; 0 where it did not, or said something odd.
        detail: What happened, for the log; a status or an error class, never what the endpoint sent.
    """

    reason: str
    after_seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """The endpoint will not take the batch.

    Attributes:
        reason: What the items are dropped for.
        detail: What happened, for the log; a status or an error class, never what the endpoint sent.
    """

    reason: str
    detail: str = ""


Verdict = Delivered | Retry | Drop


@dataclass(frozen=True, slots=True)
class Destination:
    """Says where the items of one signal go, without a secret.

    Attributes:
        signal: The signal that the endpoint takes.
        endpoint: Where it is, for the log: without credentials, query and fragment.
        key: Tells this endpoint from others, for the spool; nothing can be read from it.
        component_type: The exporter's type in the conventions, as `otlp_http_span_exporter`.
        server_address: Host name or address; None where unknown.
        server_port: TCP port; None where unknown.
        timeout_seconds: Longest time of one attempt, from the connection to the last byte of the answer.
    """

    signal: Signal
    endpoint: str
    key: str
    component_type: str
    server_address: str | None = None
    server_port: int | None = None
    timeout_seconds: float = 10.0


class Transport(Protocol):
    """Posts encoded requests of one signal to one endpoint; one thread at a time."""

    @property
    def destination(self) -> Destination:
        """Where they go."""

    def post(self, request: bytes, seconds: float) -> Verdict:
        """Sends one encoded request; returns within the seconds and never raises."""

    def abort(self) -> None:
        """Ends an attempt that is under way in another thread."""

    def forget(self) -> None:
        """Leaves the connections to the process above, in one that was forked from it."""

    def close(self) -> None:
        """Closes the connections; the next attempt opens new ones."""
