"""One story for all tests of panels, rules and alerts: a shop works, everything breaks, everything heals."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from tests.libraries.environment import create as create_environment

from .shop_servers import APPS, PostgreSQL, Server, Setting, postgresql, redis
from .shop_traffic import Clients
from .time_lapse import TimeLapse, time_lapse

NO_MEMORY: Final = {"limit_mib": 2, "spike_limit_mib": 1, "check_interval": "100ms"}
"""With this the collector refuses everything."""

SETTINGS: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": "200",
    "OTEL_BLRP_SCHEDULE_DELAY": "200",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_EXPORT_TIMEOUT": "1500",  # of a batch, retries included: what is refused for longer is dropped
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncpg",  # SQLAlchemy's spans are those of the database
}
OF_SHOP: Final = {
    "OTEL_RESOURCE_ATTRIBUTES": (
        "service.namespace=market,service.version=1.2,deployment.environment.name=test"
    ),
    "SIGHTLINE_SLA_FILE": str(APPS / "objectives.yaml"),
    "SIGHTLINE_SLOW_REQUEST": "200ms",
    "SIGHTLINE_SLOW_CALL": "200ms",
    "SIGHTLINE_TRUSTED_PROXIES": "127.0.0.1/32",
    "SIGHTLINE_LIMIT_ALL_INSTRUMENTS": "on",
    "SIGHTLINE_CARDINALITY_LIMIT": "60",
}
OF_STOCK: Final = {"OTEL_TRACES_SAMPLER": "sightline_slo", "OTEL_TRACES_SAMPLER_ARG": "1"}
OF_TWINS: Final = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=the-same"}

PAID_BEFORE, UNPAID, PAID_AFTER = 10, 50, 1000
"""Requests of the route whose objective allows 5 % to fail: far too many fail, then it is made good."""

CAUSED: Final = {
    "SLOBudgetBurnFast": {"sightline_sla_objective": "payments", "sightline_sla_kind": "availability"},
    "SLOBudgetBurnMedium": {"sightline_sla_objective": "payments", "sightline_sla_kind": "availability"},
    "SLOBudgetBurnSlow": {"sightline_sla_objective": "payments", "sightline_sla_kind": "availability"},
    "SLOBudgetBurnGradual": {"sightline_sla_objective": "payments", "sightline_sla_kind": "availability"},
    "SLOSlowTrickle": {"sightline_sla_objective": "nightly"},
    "ServiceSilent": {"service_name": "twins"},
    "HighErrorRate": {"http_route": "/orders", "http_request_method": "POST"},
    "SlowRequests": {"service_name": "shop"},
    "WebSocketAbnormalCloses": {"http_route": "/chat/{room}"},
    "BackgroundTaskFailures": {"code_function_name": "app.send_letter"},
    "SlowQueries": {"db_system_name": "postgresql", "server_address": "127.0.0.1"},
    "DatabaseDown": {"db_system_name": "postgresql", "server_address": "127.0.0.1"},
    "EventLoopBlocked": {"service_name": "shop"},
    "DuplicateInstance": {"service_name": "twins", "service_instance_id": "the-same"},
    "TelemetryDropped": {"service_name": "shop", "signal": "traces", "reason": "unavailable"},
    "MetricOverflow": {"instrument": "shop.visits", "attribute": "user.id"},
    "CollectorQueueFilling": {"exporter": "otlp_grpc/jaeger"},
    "CollectorRefusing": {"receiver": "otlp", "signal": "traces"},
    "ExporterFailing": {"exporter": "otlp_grpc/jaeger"},
    "CollectorDropped": {"exporter": "otlp_http/loki", "signal": "logs"},
    "PipelineProgramDown": {"job": "jaeger"},
}
"""Of each rule, labels of the alert that the story causes: with others, people would look elsewhere."""

OF_A_BACK_END: Final = ("PipelineProgramDown", "ExporterFailing", "CollectorQueueFilling")
OF_NO_MEMORY: Final = ("CollectorRefusing",)
"""What is waited for before that gets better; a minute at most, then the tests say what is missing."""

COUNTED_FROM_ZERO: Final = 'objective:sla_bad:rate5m{sightline_sla_objective="nightly"}'
"""There is a rate once Prometheus holds the zero of the start; failures before that are no increase."""

WAIT_SECONDS: Final = 60.0


@dataclass
class Story:
    """What happened, and when, in seconds since the epoch.

    Attributes:
        lapse: The stack, which is still up.
        correlation_id: Of one request that failed and logged an error.
        paid: Requests to the route with an objective of its own that succeeded.
        unpaid: Those that failed.
        began: When the first request was sent.
        recovered: When the pipeline was well again.
        worst: When everything had gone wrong, and nothing was forgotten yet.
        ended: When everything had been well for a while.
    """

    lapse: TimeLapse
    correlation_id: str = field(default_factory=lambda: f"story-{secrets.token_hex(4)}")
    paid: int = PAID_BEFORE + PAID_AFTER
    unpaid: int = UNPAID
    began: float = 0.0
    recovered: float = 0.0
    worst: float = 0.0
    ended: float = 0.0


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Plays the story, which takes a minute and a half, and leaves its stack up for questions."""
    folder = tmp_path_factory.mktemp("story")
    with ExitStack() as running:
        lapse = running.enter_context(time_lapse(folder))
        database = running.enter_context(postgresql())
        told = Story(lapse)
        with ExitStack() as servers:
            asyncio.run(_Telling(told, database, servers, folder).tell())
        yield told


class _Telling:
    """Plays a story once."""

    def __init__(self, story: Story, database: PostgreSQL, servers: ExitStack, folder: Path) -> None:
        self._story, self._lapse, self._database, self._servers = story, story.lapse, database, servers
        (folder / "logs").mkdir()
        variables = SETTINGS | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": story.lapse.endpoints["otlp_http"],
            "POSTGRESQL_PORT": str(database.port),
            "REDIS_PORT": str(servers.enter_context(redis())),
        }
        self._setting = Setting(create_environment(folder), folder / "logs", variables)
        stock = self._start("stock", "stock", **OF_STOCK)
        shop = self._start("app", "shop", STOCK_URL=stock.url, **OF_SHOP)
        self._twins = [self._start("stock", "twins", **OF_TWINS) for _ in range(2)]
        for server in (stock, shop, *self._twins):
            server.wait()
        self._clients = Clients(shop.url, stock.url)

    def _start(self, app: str, service: str, **variables: str) -> Server:
        server = self._setting.start(app, service, **variables)
        self._servers.callback(server.stop)
        return server

    async def tell(self) -> None:
        """Plays it, while ordinary clients go on all the time."""
        self._story.began = time.time()
        async with self._ordinary_clients():
            await self._have_twins()
            await self._until(lambda: self._lapse.has(COUNTED_FROM_ZERO))
            await self._clients.run_nightly(4)
            await self._clients.run_nightly(5, failing=True)
            await self._clients.pay(PAID_BEFORE)
            await self._clients.suffer_in_connections()
            await self._clients.suffer_unseen()
            await self._lose_a_back_end()
            await self._lose_memory()
            self._story.recovered = time.time()
            await self._break_the_shop()
            self._story.worst = time.time()
            await self._heal()
        self._story.ended = time.time()
        await self._clients.close()

    @asynccontextmanager
    async def _ordinary_clients(self) -> AsyncIterator[None]:
        browsing = asyncio.create_task(self._clients.browse())
        try:
            yield
            assert not browsing.done(), browsing.result()
        finally:
            browsing.cancel()
            with suppress(asyncio.CancelledError):
                await browsing

    async def _have_twins(self) -> None:
        """Two processes both say that they are the same instance, and differ in what they have counted."""
        for server, times in zip(self._twins, (3, 30), strict=True):
            twin = Clients(server.url, server.url)
            for _ in range(times):
                await twin.get("/stock/1")
            await twin.close()

    async def _lose_a_back_end(self) -> None:
        """Jaeger is down until its queue is full, and for long enough that somebody notices."""
        await asyncio.to_thread(self._lapse.stop, "jaeger")
        await self._until_all_fired(OF_A_BACK_END)
        await asyncio.to_thread(self._lapse.start, "jaeger")

    async def _lose_memory(self) -> None:
        """The collector has no memory, and refuses; the twins end."""
        await asyncio.to_thread(lambda: self._lapse.restart_collector(memory_limiter=NO_MEMORY))
        await asyncio.sleep(4)
        await self._until_all_fired(OF_NO_MEMORY)
        await asyncio.to_thread(self._lapse.restart_collector)
        for server in self._twins:
            await asyncio.to_thread(server.stop)

    async def _break_the_shop(self) -> None:
        paying = asyncio.create_task(self._clients.pay_in_vain(UNPAID))
        await self._clients.suffer_errors()
        await self._clients.suffer_slowness()
        await asyncio.to_thread(self._database.stop)
        await self._clients.get("/broken", **{"x-correlation-id": self._story.correlation_id})
        await self._until_all_fired(tuple(CAUSED))
        await paying

    async def _heal(self) -> None:
        await asyncio.to_thread(self._database.start)
        self._start("stock", "twins", **OF_TWINS)
        await self._clients.pay(PAID_AFTER)
        await self._clients.run_nightly(60)
        await self._until_none_fires()

    async def _until_all_fired(self, names: tuple[str, ...]) -> None:
        await self._until(lambda: all(self._is_about(name, self._lapse.fired) for name in names))

    async def _until_none_fires(self) -> None:
        await self._until(lambda: not any(self._is_about(name, self._lapse.firing) for name in CAUSED))

    @staticmethod
    def _is_about(name: str, alerts: Callable[[str], list[dict[str, str]]]) -> bool:
        """Tells whether alerts of a name are about what the story has caused."""
        return any(CAUSED[name].items() <= labels.items() for labels in alerts(name))

    @staticmethod
    async def _until(is_enough: Callable[[], bool]) -> None:
        """Lets clients go on until it is enough."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not await asyncio.to_thread(is_enough) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
