"""What is logged about deliveries: one line for each kind of trouble of a signal, at most once a minute."""

from typing import Final, NamedTuple

from sightline_processors.export import reasons
from sightline_processors.export.reasons import Signal
from sightline_processors.report import report


class _Text(NamedTuple):
    what: str
    then: str
    cure: str


_RETRIED: Final = "it is tried again, then dropped and counted in sightline.telemetry.dropped"
_DROPPED: Final = "it is dropped and counted in sightline.telemetry.dropped"

_OF_THE_ENDPOINT: Final = {
    reasons.UNREACHABLE: _Text(
        "no connection, or a broken one",
        _RETRIED,
        "is the collector running there, and is that the right endpoint?",
    ),
    reasons.TIMEOUT: _Text(
        "no whole answer in time", _RETRIED, "look at the load of the collector, or allow an export more time"
    ),
    reasons.UNAVAILABLE: _Text(
        "the collector asks to try again later",
        _RETRIED,
        "look at the collector's log and its memory_limiter",
    ),
    reasons.REDIRECTED: _Text(
        "the endpoint redirects, and redirects are not followed",
        _RETRIED,
        "set the endpoint to the final address, with https where it needs that",
    ),
    reasons.NOT_OTLP: _Text(
        "the answer is not OTLP, so it is not a delivery",
        _DROPPED,
        "is the endpoint a collector, or a proxy or a page in front of it?",
    ),
    reasons.REFUSED: _Text(
        "the request was refused",
        _DROPPED,
        "check the endpoint and its path, the headers for it, and the collector's log",
    ),
    reasons.REJECTED: _Text(
        "the collector did not take some of the items",
        "they are dropped and counted in sightline.telemetry.dropped",
        "look at the collector's log",
    ),
}

_OF_THE_PROCESS: Final = {
    reasons.QUEUE_FULL: _Text(
        "the queue is full",
        "the oldest go first and are counted in sightline.telemetry.dropped",
        "is the collector reachable? otherwise sample, or let more of them wait",
    ),
    reasons.TOO_LARGE: _Text(
        "one alone has more bytes than may wait",
        "it is counted in sightline.telemetry.dropped",
        "limit the length of attributes",
    ),
    reasons.ENCODING: _Text(
        "one could not be encoded", "it is counted in sightline.telemetry.dropped", "please report this"
    ),
    reasons.SHUTDOWN: _Text(
        "the process ended before they were delivered",
        "they are counted in sightline.telemetry.dropped",
        "is the collector reachable? SIGHTLINE_SPOOL_DIR keeps what could not be sent",
    ),
}

_ITEMS: Final[dict[Signal, str]] = {"traces": "spans", "metrics": "metrics", "logs": "logs"}


def report_fault(reason: str, signal: Signal, endpoint: str, detail: str = "") -> None:
    """Logs what happened, where, and what to do, unless the same was logged within the last minute.

    Args:
        reason: One of `reasons.REASONS`.
        signal: The signal that it happened to.
        endpoint: Where its items go, without credentials.
        detail: A status or an error class; nothing that came over the network.
    """
    items = _ITEMS[signal]
    if reason in _OF_THE_ENDPOINT:
        text, begin = _OF_THE_ENDPOINT[reason], f"Failed to export {items} batch to {endpoint}"
    else:
        text, begin = _OF_THE_PROCESS[reason], f"Dropped {items} for {endpoint}"
    shown = f" ({detail})" if detail else ""
    kind = f"export_{reason}" if reason == reasons.SHUTDOWN else f"export_{signal}_{reason}"
    report(kind, f"{begin}: {text.what}{shown}; {text.then}; {text.cure}")


def report_spool(message: str) -> None:
    """Logs trouble with the spool, at most once a minute."""
    report("export_spool", message)


def report_defect(error: BaseException) -> None:
    """Logs an error that nothing here should raise, at most once a minute; exports go on."""
    report("export_defect", "an export met an unexpected error and goes on; please report this", error=error)
