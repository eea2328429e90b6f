"""The rows of the table of scenarios: what else Sightline was measured with."""

from typing import Final

from benchmarks.cases import CAPTURED, OURS
from benchmarks.figures import Samples, Spread, added_us, cpu_ratio, share, spread

ROUTES: Final = "500 routes"
HEADER: Final = "1 of 64 headers captured"
HEADERS: Final = "64 headers captured"
UNSAMPLED: Final = "sampled at 0 %"
MESSAGES: Final = "WebSocket message"
CHILD_BARE: Final = "child span, bare"
CHILD: Final = "child span, Sightline"
CHILD_SDK: Final = "child span, SDK"


def unsampled_share(samples: Samples) -> float:
    """Returns what an unsampled request adds as a share of what a sampled one adds.

    The two are compared with each other: a ratio close to 1 that a machine's noise hardly changes. What a
    sampled one adds comes from the table of variants.
    """
    sampled = cpu_ratio(samples, OURS.name).median
    unsampled = sampled * cpu_ratio(samples, UNSAMPLED).median
    return share(unsampled - 1, sampled - 1)


def child_us(samples: Samples, name: str) -> Spread:
    """Returns what a span made by hand costs; what the API costs without any SDK is left out."""
    idle = added_us(samples, CHILD_BARE).median
    found = added_us(samples, name)
    return Spread(found.median - idle, found.low - idle, found.high - idle)


def scenario_rows(samples: Samples) -> list[tuple[str, str, str, str]]:
    """Returns what was measured: its name, its base's CPU, what it adds, and what to compare that with."""
    rows = {
        ROUTES: _routes,
        HEADERS: _headers,
        UNSAMPLED: _unsampled,
        MESSAGES: _messages,
        CHILD: _child,
    }
    return [row(samples) for name, row in rows.items() if name in samples]


def _routes(samples: Samples) -> tuple[str, str, str, str]:
    ours = _added(added_us(samples, OURS.name))
    return "a request to the last of 500 routes", *_cpu_and_added(samples, ROUTES), f"one route: {ours}"


def _headers(samples: Samples) -> tuple[str, str, str, str]:
    one, all_of_them = added_us(samples, HEADER), added_us(samples, HEADERS)
    each = (all_of_them.median - one.median) / (len(CAPTURED) - 1)
    return (
        "a request with 64 headers, all captured",
        *_cpu_and_added(samples, HEADERS),
        f"one of them captured: {_added(one)}; {each:.2f} µs for each further one",
    )


def _unsampled(samples: Samples) -> tuple[str, str, str, str]:
    compared = f"{unsampled_share(samples):.0%} of what a sampled one adds"
    return "a request that is not sampled, beside one that is", *_cpu_and_added(samples, UNSAMPLED), compared


def _messages(samples: Samples) -> tuple[str, str, str, str]:
    bare = spread(samples, MESSAGES, lambda each: each.base_rate).median
    ours = spread(samples, MESSAGES, lambda each: each.rate).median
    return (
        "a WebSocket message and its echo",
        *_cpu_and_added(samples, MESSAGES),
        f"{bare:,.0f} messages/s bare, {ours:,.0f} with Sightline",
    )


def _child(samples: Samples) -> tuple[str, str, str, str]:
    return (
        "a span by hand, with two attributes",
        f"{spread(samples, CHILD, lambda each: each.base_us).median:.0f} µs",
        _added(child_us(samples, CHILD)),
        f"the SDK's: {_added(child_us(samples, CHILD_SDK))}",
    )


def _cpu_and_added(samples: Samples, name: str) -> tuple[str, str]:
    base = spread(samples, name, lambda each: each.base_us).median
    return f"{base:.0f} µs", _added(added_us(samples, name))


def _added(added: Spread) -> str:
    return f"{added.median:+.0f} µs ({added.low:+.0f} to {added.high:+.0f})"
