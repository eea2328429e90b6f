"""What Sightline may cost, and whether a run has kept it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import CONTRIB, CORRELATION_ID, OURS
from benchmarks.figures import Samples, added_ratio, added_us, cpu_ratio, share, spread
from benchmarks.memory import Memory
from benchmarks.route_memory import ACTIVE, REGISTERED, RouteMemory
from benchmarks.scenarios import CHILD, CHILD_SDK, ROUTES, child_us, unsampled_share
from benchmarks.startup import StartUp, added_seconds

CPU_RATIO: Final = 1.15
P99_RATIO: Final = 1.2
P99_ADDED_MS: Final = 1.0
LESS_THAN_CONTRIB: Final = 20
UNSAMPLED_SHARE: Final = 0.7
CHILD_SHARE: Final = 0.5
RSS_ADDED_MB: Final = 15.0
START_UP_ADDED_SECONDS: Final = 0.15
ROUTES_SHARE: Final = 0.05
"""Of what a request to the last of 500 routes costs bare: one walk over the routes would be most of that."""

ROUTES_MB: Final = 20.0
GROWTH_MB: Final = 2.0
"""What the allocator's own noise may add to memory that does not grow."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One promise and what a run has found."""

    name: str
    limit: str
    measured: str
    is_met: bool


def budgets(
    samples: Samples,
    start_up: Sequence[StartUp],
    memory: Sequence[Memory],
    routes: RouteMemory | None = None,
) -> list[Budget]:
    """Returns every budget that the run has measured."""
    found = [
        *_of_requests(samples),
        *_of_scenarios(samples),
        *_of_start_up(start_up),
        *_of_memory(memory),
        *_of_routes(routes),
    ]
    return [budget for budget in found if "nan" not in budget.measured + budget.limit]


def _of_requests(samples: Samples) -> Iterator[Budget]:
    cpu = cpu_ratio(samples, OURS.name)
    yield Budget("CPU per request, bare = 1", f"{CPU_RATIO}", cpu.text(2), cpu.median <= CPU_RATIO)
    id_only = cpu_ratio(samples, CORRELATION_ID.name).median
    aim = f"asgi-correlation-id: {id_only:.2f}"
    yield Budget("the same, as an aim", aim, cpu.text(2), cpu.median <= id_only)
    p99 = spread(samples, OURS.name, lambda each: each.p99_ms).median
    bare_p99 = spread(samples, OURS.name, lambda each: each.base_p99_ms).median
    limit = max(P99_RATIO * bare_p99, bare_p99 + P99_ADDED_MS)
    text = f"{P99_RATIO} times bare or {P99_ADDED_MS:.0f} ms more: {limit:.2f} ms"
    yield Budget("p99 at 1,000 requests/s", text, f"{p99:.2f} ms", p99 <= limit)
    less = share(added_ratio(samples, CONTRIB.name), added_ratio(samples, OURS.name))
    text = f"(at least) {LESS_THAN_CONTRIB} times"
    yield Budget("CPU that contrib adds, ours = 1", text, f"{less:.1f} times", less >= LESS_THAN_CONTRIB)


def _of_scenarios(samples: Samples) -> Iterator[Budget]:
    one, many = added_us(samples, OURS.name).median, added_us(samples, ROUTES).median
    limit = one + ROUTES_SHARE * spread(samples, ROUTES, lambda each: each.base_us).median
    text = f"as at one, within {ROUTES_SHARE:.0%} of the request: {limit:.0f} µs"
    yield Budget("CPU added at 500 routes", text, f"{many:.0f} µs", many <= limit)
    unsampled = unsampled_share(samples)
    text = f"{UNSAMPLED_SHARE:.0%} of a sampled one's"
    yield Budget("CPU added by an unsampled request", text, f"{unsampled:.0%}", unsampled <= UNSAMPLED_SHARE)
    child = share(child_us(samples, CHILD).median, child_us(samples, CHILD_SDK).median)
    yield Budget("a span by hand", f"{CHILD_SHARE:.0%} of the SDK's", f"{child:.0%}", child <= CHILD_SHARE)


def _of_start_up(start_up: Sequence[StartUp]) -> Iterator[Budget]:
    by_name = {each.name: each for each in start_up}
    if OURS.name not in by_name or CONTRIB.name not in by_name:
        return
    ours, stock = by_name[OURS.name], by_name[CONTRIB.name]
    for name, one, other in (
        ("start-up over the stock command, an import", ours.import_seconds, stock.import_seconds),
        ("start-up over the stock command, to the first answer", ours.answer_seconds, stock.answer_seconds),
    ):
        added = added_seconds(one, other)
        limit = f"{START_UP_ADDED_SECONDS * 1e3:.0f} ms"
        yield Budget(name, limit, f"{added * 1e3:+.0f} ms", added <= START_UP_ADDED_SECONDS)


def _of_memory(memory: Sequence[Memory]) -> Iterator[Budget]:
    if not memory:
        return
    _, with_sdk, ours, down = memory
    added = ours.end_mb - with_sdk.end_mb
    yield Budget("RSS over bare + SDK", f"{RSS_ADDED_MB:.0f} MB", f"{added:+.1f} MB", added <= RSS_ADDED_MB)
    for each in (ours, down):
        growth = each.end_mb - each.early_mb
        name = f"RSS from 20 % on: {each.name}"
        yield Budget(name, f"{GROWTH_MB:.0f} MB", f"{growth:+.1f} MB", growth <= GROWTH_MB)


def _of_routes(routes: RouteMemory | None) -> Iterator[Budget]:
    if routes is not None:
        name = f"RSS of SLA and reserved series, {REGISTERED:,} routes of which {ACTIVE} are active"
        added = routes.with_mb - routes.without_mb
        yield Budget(name, f"{ROUTES_MB:.0f} MB", f"{added:+.1f} MB", added < ROUTES_MB)
