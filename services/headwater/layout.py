"""The layout of an app on a cluster: its topics, and the groups that read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from headwater.contracts import quarantine
from headwater.contracts.records import Partition
from headwater.contracts.topics import Names
from headwater.log.port import Log
from headwater.sdk.app import App

RECEIPTS_MS = 30 * 24 * 3_600_000
"""How long receipts are kept: longer than any broker keeps requests unless it was told to."""

DECISIONS_MS = 366 * 24 * 3_600_000
"""How long people's decisions can be looked up in their topic: a year, and longer than any may take."""

COORDINATORS = ("admission", "approvals")
"""Deciders whose inboxes are keyed by tenant."""

AUDIT_MS = 365 * 24 * 3_600_000
"""How long it is kept what operators did."""
AUDIT_BYTES_MAX = 2 * quarantine.RECORD_BYTES_MAX
"""What the audit topic takes: an edited value with the original beside it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A topic that an app needs.

    Args:
        name: Full name.
        partitions: How many.
        compacted: Keep the newest record per key: for good, or for as long as `retention_ms` says.
        retention_ms: How long records are kept; `None` for the broker's default.
        fixed: Growth is refused, because keys map to partitions.
        max_bytes: Largest record.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int | None = None
    fixed: bool = False
    max_bytes: int = 1_048_588


class Layout:
    """Where an app's records are.

    Args:
        app: The app.
        names: Names of its namespace.
    """

    def __init__(self, app: App, names: Names) -> None:
        self._app = app
        self._names = names

    def group(self, role: str) -> str:
        """Return the consumer group of a role: `intake`, `runs.<agent>`, `tools.<service>`, and so on."""
        return f"{self._names.namespace}.{role}"

    def needs(self, *, partitions: int = 6, coordinators: int = 6) -> Iterator[Need]:
        """Yield every topic the app needs.

        Args:
            partitions: Of inboxes, requests, commands and outcomes.
            coordinators: Of admission and approvals.
        """
        names = self._names
        hour_ms = 3_600_000
        for ctl in ("app", "members", "schemas", "shards"):
            yield Need(name=names.ctl(ctl), partitions=1, compacted=True)
        yield Need(
            name=names.ctl("suspects"), partitions=1, compacted=True, retention_ms=RECEIPTS_MS
        )
        refusing = [names.inbox(name) for name in COORDINATORS]
        for name in COORDINATORS:
            yield Need(name=names.inbox(name), partitions=coordinators, fixed=True)
            yield Need(name=names.state(name), partitions=coordinators, compacted=True, fixed=True)
        yield Need(name=names.evt("runs"), partitions=partitions)
        yield Need(name=names.evt("approvals"), partitions=partitions, retention_ms=DECISIONS_MS)
        yield Need(
            name=names.of("audit", "operators"),
            partitions=1,
            retention_ms=AUDIT_MS,
            max_bytes=AUDIT_BYTES_MAX,
        )
        yield Need(name=names.evt("tokens"), partitions=partitions, retention_ms=hour_ms // 6)
        for agent in self._app.agents:
            for name in (names.cmd(agent), names.inbox(agent)):
                refusing.append(name)
                yield Need(name=name, partitions=partitions)
            yield Need(name=names.state(f"runs.{agent}"), partitions=partitions, compacted=True)
            yield Need(name=names.evt(agent), partitions=partitions)
            yield Need(name=names.dlq(agent), partitions=1, max_bytes=quarantine.RECORD_BYTES_MAX)
        for service in self._services():
            refusing.append(names.req(service))
            yield Need(name=names.req(service), partitions=partitions, fixed=True)
            yield Need(
                name=names.receipt(service),
                partitions=partitions,
                compacted=True,
                retention_ms=RECEIPTS_MS,
                fixed=True,
            )
        for name in refusing:
            yield Need(
                name=quarantine.quarantine_topic(name),
                partitions=1,
                max_bytes=quarantine.RECORD_BYTES_MAX + 65_536,
            )

    def groups(self) -> dict[str, list[str]]:
        """Return every consumer group and the topics it reads."""
        names = self._names
        agents = self._app.agents
        found = {
            self.group("intake"): [names.cmd(agent) for agent in agents],
            **{self.group(name): [names.inbox(name)] for name in COORDINATORS},
        }
        found |= {self.group(f"runs.{agent}"): [names.inbox(agent)] for agent in agents}
        if self._app.models:
            found[self.group("models")] = [names.req("model")]
        found |= {
            self.group(f"tools.{service}"): [names.req(f"tool.{service}")]
            for service in self._app.services()
        }
        return found

    def agent_groups(self) -> list[str]:
        """Return the consumer groups that host agents."""
        return [self.group(f"runs.{agent}") for agent in self._app.agents]

    def _services(self) -> list[str]:
        tools = [f"tool.{service}" for service in self._app.services()]
        return ["model", *tools] if self._app.models else tools


def places(log: Log, topic: str) -> list[Partition]:
    """Return a topic's partitions."""
    return [Partition(topic, number) for number in range(log.partitions(topic))]
