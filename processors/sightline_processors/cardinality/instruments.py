"""The limit on the instruments of a MeterProvider: each stream of each reader has its own, after Views.

A stream comes to be with its first measurement, deep inside the SDK, which has no hook there. So the objects
on the way (the provider's consumer, each reader's storage, each stream) get a method of their own that
stands before the class's. Nothing global is patched, and `release_instruments` takes it all back.
"""

# ruff: noqa: SLF001  private names of opentelemetry-sdk 1.45: see `streams`

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.metrics import MeterProvider

from sightline_processors.cardinality.limiter import DEFAULT_LIMIT, AttributeSetLimiter
from sightline_processors.cardinality.overflow import OVERFLOW_COUNTER, overflows_of
from sightline_processors.cardinality.routes import ReservedRoutes
from sightline_processors.cardinality.streams import StreamGuard, guard_of, is_known, release
from sightline_processors.report import report

_ADD_READER: Final = "add_metric_reader"
_MATCHES_OF: Final = "_get_or_init_view_instrument_match"
_MATCHES: Final = "_instrument_view_instrument_matches"


def guard_instruments(
    meter_provider: MeterProvider,
    *,
    limit: int = DEFAULT_LIMIT,
    routes: ReservedRoutes | None = None,
    scopes: frozenset[str] | None = frozenset({"sightline"}),
) -> bool:
    """Limits the attribute sets of instruments, those that exist and those that are made later.

    Each stream (one View's result for one instrument, in one reader) keeps the first `limit - 1` attribute
    sets that are not reserved, and what it had already; all further ones are its overflow set
    `{"otel.metric.overflow": True}`. That is so in either temporality: the SDK holds the sets of a delta
    stream for good as well. Calling it again for the same provider adds the scopes and changes nothing else:
    the first limit and the first `routes` stay.

    Series and memory of a stream are bounded by `limit`, and `MAX_SETS_OF_ROUTE` for each reserved route;
    the SDK takes about 3 KB for a set of a histogram with 15 buckets. Only the sets that occur cost anything.

    Args:
        meter_provider: One of the SDK; another is left alone.
        limit: Sets for each stream, the overflow set included, from 1.
        routes: The templates whose sets never overflow; kept, and asked for each new set.
        scopes: Names of the instrumentation scopes that are limited; None for all of them.

    Returns:
        Whether the provider is guarded now. With an SDK that is built otherwise than the tested one, it is
        not, and a line in the log says so.

    Raises:
        ValueError: The limit is below 1.
    """
    AttributeSetLimiter(limit)
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    if consumer is None:
        return False
    try:
        with _lock:
            guard = _guard_of(consumer) or _ProviderGuard(consumer, limit, routes, scopes)
            guard.widen(scopes)
            guard.install()
    except Exception as error:  # noqa: BLE001  another SDK than the tested one
        report("cardinality", "cannot limit attribute sets with this SDK; series are unbounded", error=error)
        return False
    return True


def release_instruments() -> None:
    """Lifts all limits; the sets that there are keep counting."""
    with _lock:
        for guard in list(_guards):
            guard.remove()
            _guards.discard(guard)


class _ProviderGuard:
    """Guards the streams of one provider; lives as long as its consumer."""

    def __init__(
        self, consumer: Any, limit: int, routes: ReservedRoutes | None, scopes: frozenset[str] | None
    ) -> None:
        self._consumer = consumer
        self._limit = limit
        self._routes = routes
        self._scopes = scopes
        self._overflows = overflows_of(consumer)

    def widen(self, scopes: frozenset[str] | None) -> None:
        """Adds scopes; None for all."""
        self._scopes = None if scopes is None or self._scopes is None else self._scopes | scopes

    def install(self) -> None:
        """Guards what there is and sees to what will be; again for the streams of further scopes."""
        self._guard_storages()
        if _ADD_READER not in vars(self._consumer):
            self._add_reader = self._consumer.add_metric_reader
            vars(self._consumer)[_ADD_READER] = self.add_metric_reader
            _guards.add(self)

    def add_metric_reader(self, metric_reader: Any) -> None:
        """Stands before the consumer's method; guards the reader that comes."""
        self._add_reader(metric_reader)
        try:
            self._guard_storages()
        except Exception as error:  # noqa: BLE001  fail open: the reader has come
            report("cardinality", "could not limit the attribute sets of a reader", error=error)

    def _guard_storages(self) -> None:
        storages = list(self._consumer._reader_storages.values())
        for storage in storages:
            _check(storage)
        for storage in storages:
            if _MATCHES_OF not in vars(storage):
                vars(storage)[_MATCHES_OF] = partial(
                    self._matches, storage, getattr(storage, _MATCHES_OF), {}
                )
            with storage._lock:
                for matches in getattr(storage, _MATCHES).values():
                    self._guard_streams(matches)

    def _matches(
        self, storage: Any, original: Any, guarded: dict[Any, Sequence[Any]], instrument: Any
    ) -> Sequence[Any]:
        """Stands before the storage's method; guards the streams that come.

        The storage shows new streams before they are guarded, hence a dict of those that are.
        """
        matches = guarded.get(instrument)
        if matches is None:
            with storage._lock:
                matches = original(instrument)
                self._guard_streams(matches)
                guarded[instrument] = matches
        return matches

    def _guard_streams(self, matches: Sequence[Any]) -> None:
        for match in matches:
            try:
                if self._is_in_scope(match) and guard_of(match) is None:
                    self._guard_stream(match)
            except Exception as error:  # noqa: BLE001  fail open: measured without a limit
                report("cardinality", "could not limit the attribute sets of an instrument", error=error)

    def _is_in_scope(self, match: Any) -> bool:
        if match._instrument.name == OVERFLOW_COUNTER:
            return False  # bounded as it is, and what it says is not to be lost
        return self._scopes is None or match._instrument.instrumentation_scope.name in self._scopes

    def _guard_stream(self, match: Any) -> None:
        if not is_known(match):
            report("cardinality", "cannot limit attribute sets with this SDK; series are unbounded")
            return
        limiter = AttributeSetLimiter(self._limit, routes=self._routes)
        StreamGuard(match, limiter, self._overflows, self._limit).install()

    def remove(self) -> None:
        """Takes everything back."""
        vars(self._consumer).pop(_ADD_READER, None)
        for storage in list(self._consumer._reader_storages.values()):
            vars(storage).pop(_MATCHES_OF, None)
            with storage._lock:
                for matches in getattr(storage, _MATCHES).values():
                    for match in matches:
                        release(match)


def _check(storage: Any) -> None:
    """Raises AttributeError before anything is changed, if a storage is not made as this module expects."""
    for name in (_MATCHES, _MATCHES_OF, "_lock"):
        getattr(storage, name)


_lock = threading.RLock()
_guards: "WeakSet[_ProviderGuard]" = WeakSet()


def _guard_of(consumer: Any) -> _ProviderGuard | None:
    guard = getattr(vars(consumer).get(_ADD_READER), "__self__", None)
    return guard if isinstance(guard, _ProviderGuard) else None
