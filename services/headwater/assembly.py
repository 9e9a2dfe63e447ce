"""Assembly: the one place where an app, a log and the loops are put together."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, get_args

from headwater.admission import rows as admission_rows
from headwater.admission import shards
from headwater.admission.decider import Admission
from headwater.admission.placement import Placement
from headwater.admission.quotas import Quotas
from headwater.admission.telling import Routes as AdmissionRoutes
from headwater.approvals import rows as approval_rows
from headwater.approvals.decider import Approvals
from headwater.approvals.decider import Routes as ApprovalRoutes
from headwater.catalogue import AppCatalogue
from headwater.contracts import messages, quarantine
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.ctl import ShardTable
from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.topics import Names
from headwater.core.blobs import Blobs
from headwater.core.decider import Decider, Timer
from headwater.core.effector import Effector
from headwater.core.envelope import Envelope
from headwater.core.execution import Raised
from headwater.core.messages import Address
from headwater.core.prices import Prices
from headwater.core.projection import Projection
from headwater.core.versions import Versions
from headwater.errors import PoisonError
from headwater.intake.decider import Door, Intake, Sample, as_foreign
from headwater.layout import COORDINATORS, Layout
from headwater.log.port import Log
from headwater.models.effector import Models
from headwater.runs import rows as run_rows
from headwater.runs.bounds import Bounds as RunBounds
from headwater.runs.decider import Runs
from headwater.runs.life import Facts
from headwater.runs.retention import KEEP_MS
from headwater.runs.routes import Routes
from headwater.runs.values import Large
from headwater.runs.visit import remembered
from headwater.runtime.deciding import Deciding
from headwater.runtime.guard import Guard
from headwater.runtime.lanes import Bounds
from headwater.runtime.observing import Observer
from headwater.runtime.operating import Operating
from headwater.runtime.pace import Pace
from headwater.runtime.patience import Patient
from headwater.runtime.performing import CallObserver, Lease, Performing, Retry
from headwater.runtime.projecting import Projecting
from headwater.runtime.restoring import Inline, Local, Restorer
from headwater.runtime.retrying import Retrying, Sleep
from headwater.runtime.suspects import Suspects
from headwater.runtime.taking import Opener
from headwater.runtime.trying import Trying
from headwater.sdk.app import App
from headwater.sdk.models import Model
from headwater.sdk.tools import Tool
from headwater.tools.effector import Tools
from headwater.views.ledger import Ledger

ROWS = (Timer, *admission_rows.KINDS, *approval_rows.KINDS, *run_rows.KINDS, *run_rows.BUCKETS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What can be set about one process's loops.

    Args:
        clock: Wall clock in milliseconds.
        instance: Name of this member in every group; a second process of the same name fences it.
        executor: Where partitions are restored; `Inline()` for one thread.
        local: Keeps rows beside the process; `None` reads them from the log alone.
        threaded: Whether effectors' consumers have threads of their own.
        prices: What models cost.
        quotas: How many runs tenants may have open.
        placement: Which partitions tenants may use.
        sample: Whether a new trace is sampled.
        pace: Bounds of the deciding loops.
        bounds: Bounds of the performing loops.
        retry: How calls are tried again.
        lease: How long a call that was noted before it began may go on unseen.
        observer: Told of what was committed.
        calls: Told of what was answered.
        counted: Has an effector's tries counted.
        executions_max: Suspended runs kept in memory, per agent.
        versions: What is known of the app's versions now.
        failed_ms_max: How long the rows of failed runs are kept.
        sleep: Waits for so many seconds between two tries of a call.
        blobs: The store of large values; `None` for none, then they are refused.
    """

    clock: Callable[[], int]
    instance: str = "local"
    executor: concurrent.futures.Executor = dataclasses.field(default_factory=Inline)
    local: Local | None = None
    threaded: bool = False
    prices: Prices = dataclasses.field(default_factory=Prices)
    quotas: Quotas = dataclasses.field(default_factory=Quotas)
    placement: Placement = dataclasses.field(default_factory=Placement)
    sample: Sample = lambda _: False
    pace: Pace = dataclasses.field(default_factory=Pace)
    bounds: Bounds = dataclasses.field(default_factory=Bounds)
    retry: Retry = dataclasses.field(default_factory=Retry)
    lease: Lease = dataclasses.field(default_factory=Lease)
    observer: Observer | None = None
    calls: CallObserver | None = None
    counted: Callable[[Effector], Effector] = lambda effector: effector
    executions_max: int = 10_000
    versions: Callable[[], Versions] = Versions
    failed_ms_max: int = KEEP_MS
    sleep: Sleep = asyncio.sleep
    blobs: Blobs | None = None


class Platform:
    """One app on one log: builds each loop on demand.

    Args:
        app: The app.
        log: The log.
        parts: What can be set.
        namespace: Instead of the app's own.
    """

    def __init__(self, app: App, log: Log, parts: Parts, *, namespace: str | None = None) -> None:
        self.app = app
        self.log = log
        self.parts = parts
        self.names = Names(namespace or app.namespace)
        self.layout = Layout(app, self.names)
        self.schemas: Schemas = app.schemas
        self.codec = Codec(self.schemas, (*messages.SHIPPED, *ROWS))
        self.guard: Guard | None = None
        """Keeps killers of processes apart; set before loops are built, where a supervisor watches."""

    def envelope(self, source: str, takes: tuple[type, ...] = ()) -> Envelope:
        """Return an envelope that signs as `source`, and opens what is named, or anything."""
        return Envelope(self.codec, source=source, takes=takes)

    @functools.cached_property
    def shards(self) -> Mapping[str, ShardTable]:
        """Tables of the inboxes that are keyed by tenant; fixed with their numbers of partitions."""
        topics = [self.names.inbox(name) for name in COORDINATORS]
        return {topic: shards.table(topic, self.log.partitions(topic)) for topic in topics}

    def admission_address(self, tenant: str) -> Address:
        """Return where a tenant's admission is."""
        return self._tenants(self.names.inbox("admission"), tenant)

    def approvals_address(self, tenant: str) -> Address:
        """Return where a tenant's approvals are."""
        return self._tenants(self.names.inbox("approvals"), tenant)

    def _tenants(self, topic: str, tenant: str) -> Address:
        return Address(topic, tenant, shards.partition(self.shards[topic], tenant))

    def intake(self) -> Deciding:
        """Build the loop of intake."""
        doors = {
            self.names.cmd(name): Door(
                agent=name,
                input=agent.input,
                tenants=agent.tenants,
                actors=agent.actors,
            )
            for name, agent in self.app.agents.items()
        }
        decider = Intake(
            doors,
            schemas=self.schemas,
            admission=self.admission_address,
            sample=self.parts.sample,
        )
        return self._deciding(decider, "intake", [*doors], state=None, opener=as_foreign)

    def admission(self) -> Deciding:
        """Build the loop of admission."""
        names = self.names
        decider = Admission(
            AdmissionRoutes(
                inbox=names.inbox,
                events=names.evt,
                life=names.evt("runs"),
                partitions=lambda agent: self.log.partitions(names.inbox(agent)),
                has=self._has,
                dedupe_s={name: agent.dedupe_s for name, agent in self.app.agents.items()},
            ),
            placement=self.parts.placement,
            quotas=self.parts.quotas,
            aside=functools.partial(
                _held_aside, self.layout.group("admission"), names.inbox("admission")
            ),
        )
        return self._deciding(
            decider,
            "admission",
            [names.inbox("admission")],
            state=names.state("admission"),
            patient=Patient(kind=messages.Closed, when=decider.patient),
        )

    def approvals(self) -> Deciding:
        """Build the loop of approvals."""
        names = self.names
        decider = Approvals(
            ApprovalRoutes(inbox=names.inbox, events=names.evt("approvals"), has=self._has)
        )
        return self._deciding(
            decider, "approvals", [names.inbox("approvals")], state=names.state("approvals")
        )

    def runs(self, agent: str) -> Deciding:
        """Build the loop that hosts one agent."""
        names, group = self.names, f"runs.{agent}"
        trying = None if self.guard is None else Trying(self.guard, agent, remembered)
        decider = self.runs_decider(agent, going_on=None if trying is None else trying.going_on)
        return self._deciding(
            decider, group, [names.inbox(agent)], state=names.state(group), trying=trying
        )

    def runs_decider(self, agent: str, *, going_on: Callable[[], None] | None = None) -> Runs:
        """Build what hosts one agent, with whom it tells that a turn of many deliveries goes on."""
        names = self.names
        return Runs(
            self.app.agents[agent],
            catalogue=AppCatalogue(self.app, self.parts.prices),
            judge=self.app.judge,
            routes=Routes(
                inbox=names.inbox,
                request=names.req,
                events=names.evt,
                dead=names.dlq,
                life=names.evt("runs"),
                audit=names.of("audit", "operators"),
                admission=self.admission_address,
                approvals=self.approvals_address,
                place=self._place,
            ),
            dead_letter=functools.partial(_dead_letter, self.layout.group(f"runs.{agent}")),
            version=self.app.version,
            versions=self.parts.versions,
            bounds=RunBounds(
                executions_max=self.parts.executions_max, failed_ms_max=self.parts.failed_ms_max
            ),
            large=self._large(),
            going_on=going_on,
        )

    def models(self, models: Mapping[str, Model] | None = None, settings: Any = None) -> Performing:
        """Build the loop of models."""
        return self._performing(self.model_effector(models, settings), "models")

    def model_effector(
        self, models: Mapping[str, Model] | None = None, settings: Any = None
    ) -> Models:
        """Build what asks models."""
        return Models(
            models or self.app.models,
            prices=self.parts.prices,
            settings=settings,
            blobs=self.parts.blobs,
        )

    def tools(
        self, service: str, deps: Any = None, tools: Mapping[str, Tool[Any, Any]] | None = None
    ) -> Performing:
        """Build the loop of one tool service."""
        effector = self.tool_effector(service, deps, tools)
        return self._performing(effector, f"tools.{service}", intends=effector.intends)

    def tool_effector(
        self, service: str, deps: Any = None, tools: Mapping[str, Tool[Any, Any]] | None = None
    ) -> Tools:
        """Build what runs one service's tools."""
        mine = {
            name: tool
            for name, tool in (tools or self.app.tools).items()
            if tool.service == service
        }
        return Tools(service, mine, deps)

    @functools.cached_property
    def ledger(self) -> Ledger:
        """What operators did to kept records."""
        return Ledger(self.log, self.codec, self.names.of("audit", "operators"))

    def operating(self, run: Callable[[str], Mapping[str, Any] | None]) -> Operating:
        """Build what carries operators' wishes out.

        Args:
            run: A run's id to what is known of it, if anything is.
        """
        return Operating(
            self.log,
            self.ledger,
            envelope=self.envelope("operator"),
            names=self.names,
            admission=self.admission_address,
            group=lambda operation: self.layout.group(f"operation.{operation}"),
            run=run,
            clock=self.parts.clock,
        )

    def projecting(self, projection: Projection) -> Projecting:
        """Build the loop of a projection."""
        return Projecting(
            log=self.log, projection=projection, opener=self.envelope("projection").open
        )

    def suspects(self, *, deaths_max: int) -> Suspects:
        """Build what is known of records that were at work when processes died."""
        retrying = Retrying(self.parts.retry, clock=self.parts.clock, sleep=self.parts.sleep)
        return Suspects(
            self.log,
            topic=self.names.ctl("suspects"),
            envelope=self.envelope("supervisor"),
            instance=self.parts.instance,
            retrying=retrying,
            deaths_max=deaths_max,
        )

    def _large(self) -> Large | None:
        blobs = self.parts.blobs
        if blobs is None:
            return None
        return Large(inline_bytes_max=blobs.inline_bytes_max, bytes_max=blobs.bytes_max)

    def _has(self, agent: str, number: int) -> bool:
        """Return whether an agent has such an inbox partition, be it of this app or of a later one."""
        return self.log.has(Partition(self.names.inbox(agent), number))

    def _place(self, tenant: str, agent: str, task_id: str) -> int:
        count = self.log.partitions(self.names.inbox(agent))
        return self.parts.placement.place(tenant, task_id, count)

    def _deciding(
        self,
        decider: Decider[Any],
        role: str,
        topics: list[str],
        *,
        state: str | None,
        opener: Opener | None = None,
        trying: Trying | None = None,
        patient: Patient | None = None,
    ) -> Deciding:
        group = self.layout.group(role)
        return Deciding(
            log=self.log,
            owner=self.log.own(topics, group=group, instance=self.parts.instance),
            decider=decider,
            envelope=self.envelope(role, get_args(decider.takes)),
            restorer=Restorer(
                self.log,
                group=group,
                state=state,
                codec=self.codec,
                executor=self.parts.executor,
                local=self.parts.local,
            ),
            quarantine=functools.partial(quarantine.keep, group=group),
            state=state,
            clock=self.parts.clock,
            opener=opener,
            pace=self.parts.pace,
            observer=self.parts.observer,
            store=self.parts.blobs,
            trying=trying,
            patient=patient,
        )

    def _performing(self, effector: Effector, role: str, *, intends: bool = False) -> Performing:
        group, instance = self.layout.group(role), self.parts.instance
        effector = self.parts.counted(effector)
        topic = self.names.req(effector.name)
        return Performing(
            log=self.log,
            worker=self.log.work([topic], group=group, instance=instance, intends=intends),
            group=group,
            effector=effector,
            envelope=self.envelope(role),
            quarantine=functools.partial(quarantine.keep, group=group),
            tokens=self.names.evt("tokens"),
            clock=self.parts.clock,
            bounds=self.parts.bounds,
            retry=self.parts.retry,
            threaded=self.parts.threaded,
            observer=self.parts.calls,
            sleep=self.parts.sleep,
            receipts=self.names.receipt(effector.name),
            holder=instance,
            lease=self.parts.lease,
            blobs=self.parts.blobs,
            doing=None if self.guard is None else self.guard.doing(effector),
        )


def _held_aside(group: str, inbox: str, record: Record, tenant: str, error: PoisonError) -> Draft:
    """Return what keeps a held task: beside what admission refuses, for its own topics may be gone."""
    return quarantine.letter(
        record,
        quarantine.quarantine_topic(inbox),
        group=group,
        code=error.code,
        kind=type(error).__name__,
        message=str(error),
        more=(("tenant", tenant),),
    )


def _dead_letter(group: str, record: Record, topic: str, ended: Raised, facts: Facts) -> Draft:
    return quarantine.letter(
        record,
        topic,
        group=group,
        code=ended.error,
        kind=ended.error,
        message=ended.detail,
        stack=ended.stack,
        more=(
            ("run", facts.run),
            ("tenant", facts.tenant),
            ("attempt", str(facts.attempt)),
            ("writes", ", ".join(facts.writes)),
        ),
        deliveries=facts.attempt,
    )
