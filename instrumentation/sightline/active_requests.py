"""How many requests are under way, by method and scheme."""

from opentelemetry.context import Context
from opentelemetry.metrics import Meter, Observation
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME

from sightline import names
from sightline.types import Attributes

DESCRIPTION = "Number of active HTTP server requests."


class ActiveCount:
    """Counts the requests of one method and scheme that have started, and those that have ended.

    No lock: between reading and writing `started += 1` there is no call, and CPython changes threads at calls
    and jumps only. `ended` is changed with the lock of the pending requests held, or by `end`.

    Attributes:
        started: Requests so far.
    """

    __slots__ = ("_ended", "started")

    def __init__(self) -> None:
        self.started = 0
        self._ended = 0

    def ended(self, requests: int = 1) -> None:
        """Counts requests that have ended."""
        self._ended += requests

    @property
    def active(self) -> int:
        """How many are under way, those that are still pending included."""
        return self.started - self._ended


class ActiveRequests:
    """Counts the requests under way by method and scheme, both from closed sets; any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], ActiveCount] = {}

    def count_of(self, method: str, scheme: str) -> ActiveCount:
        """Returns the count that the requests change."""
        return self._counts.setdefault((method, scheme), ActiveCount())

    def observations(self) -> list[Observation]:
        """Returns the counts as they are now."""
        return [
            Observation(count.active, {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme})
            for (method, scheme), count in list(self._counts.items())
        ]


class CountedActiveRequests:
    """Counts them with an instrument, where there is none to observe them."""

    def __init__(self, meter: Meter) -> None:
        self._instrument = meter.create_up_down_counter(
            names.ACTIVE_REQUESTS, unit="{request}", description=DESCRIPTION
        )

    def add(self, amount: int, method: str, scheme: str, context: Context) -> None:
        """Counts a request that starts (1) or ends (-1)."""
        attributes: Attributes = {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme}
        self._instrument.add(amount, attributes, context)
