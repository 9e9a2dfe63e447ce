"""Hosts: they run roles as a process, on a log in memory (`dev`) or on Kafka (`run`)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from headwater import serving
from headwater.assembly import Parts, Platform
from headwater.backing import blobs_of, local_of, registry_of
from headwater.children import Part
from headwater.doors import health
from headwater.doors.approvals import Approvals
from headwater.doors.callers import read
from headwater.doors.gateway import Gateway, Surface
from headwater.doors.kept import Kept
from headwater.doors.shelf import Shelf
from headwater.doors.tokens import Tail
from headwater.durable import confine
from headwater.fleet import Fleet, Following, Members
from headwater.log.port import Log
from headwater.meter import Meter
from headwater.models import providers
from headwater.models.prices import snapshot
from headwater.presence import Presence
from headwater.runtime.deciding import Deciding
from headwater.runtime.guard import Guard
from headwater.runtime.lanes import Bounds
from headwater.runtime.lines import Line
from headwater.runtime.operating import Operating, Wish
from headwater.runtime.pace import Pace
from headwater.runtime.performing import Lease, Performing, Retry
from headwater.runtime.posts import Posts
from headwater.runtime.process import Process, Served, Threaded
from headwater.runtime.projecting import Projecting
from headwater.sdk.app import App
from headwater.settings import Settings
from headwater.tenancy import tenancy_of
from headwater.tools.lifespans import entered
from headwater.tracing import context, spans
from headwater.tracing.port import Tracing
from headwater.views.approvals import ApprovalIndex
from headwater.views.runs import RunIndex

logger = logging.getLogger(__name__)

ROLES = ("coordinator", "agents", "models", "tools", "gateway")
_STALLED_S = 60.0
_BEAT_S = 0.5


def calm_collector() -> None:
    """Have Python look for cycles less often: batches hold many live objects, and few cycles.

    Measured on a batch of turns: a third of the time went into collections that found nothing. Of a
    replay it was a sixth, while a batch of letters held more objects than started a collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 50)


class Host:
    """One process: the loops of its roles, its health, and the gateway if it is one.

    Args:
        app: The app.
        log: The log.
        settings: The settings.
        roles: Which of `ROLES`.
        services: Tool services, if not all.
        index_path: File of the run index.
        announce: Told where HTTP is served.
        leave: Whether members give their partitions up at once when the process stops.
        tracing: Told of what was committed.
        share: Of traces that begin here, how many are recorded.
        listener: Where HTTP is served, bound already; otherwise as the settings say.
        part: What a supervisor made of this process; `None` where there is none.
        members: Returns the client ids of members of the agents' groups; `None` where this process is
            alone.
    """

    def __init__(
        self,
        app: App,
        log: Log,
        settings: Settings,
        *,
        roles: Collection[str],
        services: Collection[str] = (),
        index_path: str = ":memory:",
        announce: Callable[[str], None] = lambda _: None,
        leave: bool = False,
        tracing: Tracing | None = None,
        share: float = 0.0,
        listener: socket.socket | None = None,
        part: Part | None = None,
        members: Members | None = None,
    ) -> None:
        providers.check(app.models)
        self._app = app
        self._members = members
        self._fleet = Fleet(gone_s=settings.loops.version_gone_s)
        self._listener = listener
        self._part = part
        self._settings = settings
        self._roles = frozenset(roles)
        self._services = [*services] or app.services()
        self._announce = announce
        self._leave = leave
        self._registry = CollectorRegistry()
        self._oldest = Gauge(
            "headwater_oldest_record_seconds",
            "Age of the oldest record that was read and not yet taken; 0 where there is none.",
            ["decider"],
            registry=self._registry,
        )
        self._tracing = tracing or spans.Silent()
        self._share = share
        self._meter = Meter(self._registry, self._tracing)
        self.platform = Platform(
            app, log, self._parts(settings), namespace=settings.namespace or None
        )
        found = registry_of(settings.registry)
        if found is not None:
            self.platform.schemas.connect(found)
        self._index = RunIndex(self.platform.names.evt("runs"), index_path)
        beside = index_path if index_path == ":memory:" else f"{index_path}.approvals"
        self._approvals = ApprovalIndex(self.platform.names.evt("approvals"), beside)
        self._tail = Tail(self.platform.names.evt("tokens"))
        self._deciding: list[Deciding] = []
        self._performing: list[Performing] = []
        self._projecting: list[Projecting] = []
        self._operating: Operating | None = None
        self._presence = Presence(log.answers)
        self.process: Process | None = None

    async def run(self, *, signals: bool = True) -> None:
        """Run until stopped.

        Raises:
            SettingsError: Something that is set cannot work.
        """
        calm_collector()
        threads = self._settings.loops.threads_max
        asyncio.get_running_loop().set_default_executor(
            concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="sync-tools")
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._tracing.close)
            deps = None
            if "tools" in self._roles:
                lifespan = self._app.lifespans.get("tools")
                deps = await stack.enter_async_context(entered(lifespan, self._settings))
            threaded = [*await self._guard(stack), *self._threads()]
            served = [*self._calls(deps)]
            server, url = self._serve()
            served.append(Served(name="http", run=server))
            served.append(Served(name="meter", run=self._meter.follow))
            self.process = Process(
                threaded=threaded, served=served, drain_s=self._settings.loops.drain_s
            )
            if self._operating is not None:
                stack.callback(self._operating.close)
            self._announce(url)
            await self.process.run(signals=signals)

    async def _guard(self, stack: contextlib.AsyncExitStack) -> list[Threaded]:
        """Write down what a death left, before anything joins; then watch for what others write."""
        part = self._part
        if part is None:
            return []
        given = self._settings.supervisor
        guard = self.platform.guard = Guard(
            part.posts,
            self.platform.suspects(deaths_max=given.deaths_max),
            lambda: Line.over(part.cell()),
            cells_max=given.cells_max,
        )
        self._count(part, guard)
        beating = asyncio.create_task(_beat(part.posts))
        stack.callback(beating.cancel)
        stack.callback(guard.apart.stop)
        await guard.begin(part.accused)
        return [Threaded(name="suspects", run=guard.follow)]

    def _count(self, part: Part, guard: Guard) -> None:
        """Have the figures say how often this process had to be started, and how many are suspected."""
        Gauge(
            "headwater_process_starts",
            "Starts of this process by its supervisor, the first included.",
            registry=self._registry,
        ).set(part.starts)
        Gauge(
            "headwater_suspects",
            "Records in the namespace that were at work when a process died, killers included.",
            registry=self._registry,
        ).set_function(lambda: len(guard.suspects))

    def _threads(self) -> Iterator[Threaded]:
        platform = self.platform
        builders: list[tuple[str, Callable[[], Deciding]]] = []
        if "coordinator" in self._roles:
            builders += [
                ("intake", platform.intake),
                ("admission", platform.admission),
                ("approvals", platform.approvals),
            ]
        if "agents" in self._roles:
            builders += [
                (f"runs.{agent}", functools.partial(platform.runs, agent))
                for agent in self._app.agents
            ]
        following = Following(
            platform, self._fleet, self._members if "agents" in self._roles else None
        )
        yield Threaded(name="following", run=following.run)
        yield Threaded(name="presence", run=self._presence.run)
        for name, build in builders:
            yield Threaded(name=name, run=self._decide(name, build))
        if "gateway" in self._roles:
            for projection in (self._index, self._approvals, self._tail):
                loop = platform.projecting(projection)
                self._projecting.append(loop)
                yield Threaded(name="projecting", run=loop.run)

    def _decide(
        self, name: str, build: Callable[[], Deciding]
    ) -> Callable[[threading.Event], None]:
        loop = build()
        self._deciding.append(loop)
        self._oldest.labels(name).set_function(lambda: _age_s(loop.oldest_ms))

        def run(stop: threading.Event) -> None:
            loop.run(stop, leave=self._leave)

        return run

    def _calls(self, deps: Any) -> Iterator[Served]:
        platform, drain_s = self.platform, self._settings.loops.drain_s
        loops: list[tuple[str, Performing]] = []
        if "models" in self._roles and self._app.models:
            loops.append(("models", platform.models(settings=self._settings)))
        if "tools" in self._roles:
            loops += [(f"tools.{name}", platform.tools(name, deps)) for name in self._services]
        for name, loop in loops:
            self._performing.append(loop)
            self._meter.watch(name, functools.partial(getattr, loop, "busy"))

            async def run(stop: asyncio.Event, loop: Performing = loop) -> None:
                await loop.run(stop, drain_s=drain_s * 0.8, leave=self._leave)

            yield Served(name=name, run=run)

    def _serve(self) -> tuple[Callable[[asyncio.Event], Any], str]:
        routes = health.routes(live=self._live, ready=self._ready, registry=self._registry)
        asgi = self._gateway(routes) if "gateway" in self._roles else serving.bare(routes)
        listener = self._listener or serving.bind(self._settings, self._roles)
        return serving.listen(asgi, listener, self._settings.http.host)

    def _gateway(self, routes: Sequence[BaseRoute]) -> Starlette:
        platform = self.platform
        names = platform.names
        callers = read(self._settings.http.tokens_file)
        approvals = Approvals(
            log=platform.log,
            envelope=platform.envelope("gateway"),
            address=platform.approvals_address,
            index=self._approvals,
            results={name: tool.result for name, tool in self._app.tools.items()},
            clock=platform.parts.clock,
            callers=callers,
            body_bytes_max=self._settings.http.body_bytes_max,
        )
        self._operating = platform.operating(self._index.get)
        surface = Surface(
            log=platform.log,
            envelope=platform.envelope("gateway"),
            inputs={name: agent.input for name, agent in self._app.agents.items()},
            command=names.cmd,
            admission=platform.admission_address,
            index=self._index,
            tokens=self._tail,
            kept=kept(platform, self._operating),
            callers=callers,
            tenant=self._settings.tenant,
            body_bytes_max=self._settings.http.body_bytes_max,
            streams_max=self._settings.http.streams_max,
        )
        return Gateway(surface).app([*approvals.routes(), *routes])

    def _live(self) -> tuple[bool, dict[str, object]]:
        now_s = time.monotonic()
        steps = [loop.stepped_s for loop in self._deciding]
        steps += [loop.stepped_s for loop in self._performing]
        stalled = sum(now_s - stepped_s > _STALLED_S for stepped_s in steps)
        live = self.process is not None and self.process.live and not stalled
        return live, {"stalled": stalled}

    def _ready(self) -> tuple[bool, dict[str, object]]:
        restoring = sum(loop.restoring for loop in self._deciding)
        caught_up = all(loop.caught_up for loop in self._projecting)
        stopping = self.process is None or self.process.stopping
        claims = sum(len(loop.claims) for loop in self._deciding)
        claims += sum(len(loop.claims) for loop in self._performing)
        here = self._presence.here
        details: dict[str, object] = {"claims": claims, "restoring": restoring, "log": here}
        return here and not restoring and caught_up and not stopping, details

    def _sampled(self, trace: bytes) -> bool:
        return context.chosen(trace, ratio=self._share)

    def _parts(self, settings: Settings) -> Parts:
        loops = settings.loops
        tenancy = tenancy_of(settings.tenants.file, loops)
        return Parts(
            clock=confine.wall_ms,
            instance=settings.instance,
            executor=concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="restoring"),
            local=local_of(settings),
            threaded=True,
            prices=snapshot(self._app.models, settings.prices.file),
            quotas=tenancy.quotas,
            placement=tenancy.placement,
            sample=self._sampled,
            pace=Pace(
                records_max=loops.batch_records_max,
                batch_ms_max=loops.batch_ms_max,
                slow_turn_ms=loops.slow_turn_ms,
                patience_ms=loops.patience_ms,
            ),
            bounds=Bounds(
                calls_max=loops.calls_max,
                tenant_max=loops.calls_tenant_max,
                name_max=loops.calls_name_max,
                weights=tenancy.weights,
            ),
            retry=Retry(total_s=loops.retry_s_max),
            lease=Lease(
                lease_ms=round(loops.lease_s * 1000),
                still_ms=settings.kafka.session_ms // 2,
                settle_ms=settings.kafka.heartbeat_ms + 1_000,
            ),
            observer=self._meter,
            calls=self._tracing,
            counted=self._meter.counted,
            executions_max=loops.executions_max,
            blobs=blobs_of(settings.blobs, namespace=settings.namespace or self._app.namespace),
            versions=self._fleet.versions,
            failed_ms_max=round(loops.failed_days_max * 86_400_000),
        )


def kept(platform: Platform, operating: Operating) -> Kept:
    """Return what the doors of kept records stand in front of."""
    needs = [need.name for need in platform.layout.needs()]
    return Kept(
        shelf=Shelf(platform.log, platform.ledger),
        operator=operating,
        wish=Wish,
        names=platform.names,
        quarantines=[name for name in needs if ".quarantine." in name],
        agents={name: agent.input for name, agent in platform.app.agents.items()},
        schemas=platform.schemas,
    )


def _age_s(time_ms: int | None) -> float:
    return 0.0 if time_ms is None else max(0.0, (confine.wall_ms() - time_ms) / 1000)


async def _beat(posts: Posts) -> None:
    """Say that the event loop turns, while the process drains too."""
    while True:
        posts.beat()
        await asyncio.sleep(_BEAT_S)
