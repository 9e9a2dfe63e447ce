"""The run index: what every run is doing and how it went, folded from its life-cycle events."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from headwater.contracts.messages import CallNote, RunEvent
from headwater.core.messages import Meta
from headwater.views.filed import Filed

_TABLES = {
    "runs": """
create table if not exists runs (
  run text primary key, task_id text, agent text, tenant text, status text, reason text, at_ms integer,
  began_ms integer, data text
);
create index if not exists runs_task on runs (task_id);
create index if not exists runs_tenant on runs (tenant, at_ms);
""",
    "events": """
create table if not exists events (
  run text, seq integer primary key autoincrement, data text
);
create index if not exists events_run on events (run, seq);
""",
}
_VERSION = 4
ENDED = frozenset({"completed", "failed", "cancelled", "quarantined", "discarded"})
EVENTS_MAX = 1_000


class RunIndex(Filed):
    """An index in SQLite; delete its file and it is built again from the log.

    Args:
        topic: The life-cycle topic.
        path: Its file; `:memory:` forgets at exit.
    """

    def __init__(self, topic: str, path: str = ":memory:") -> None:
        super().__init__(topic, path, tables=_TABLES, version=_VERSION)

    def get(self, run: str, *, tenant: str | None = None) -> dict[str, Any] | None:
        """Return one run, by run id or task id; of a task's runs, the newest."""
        rows = self._rows(
            "select data, tenant from runs where run = ? or task_id = ? order by at_ms desc limit 1",
            (run, run),
        )
        if not rows or (tenant is not None and rows[0][1] != tenant):
            return None
        found: dict[str, Any] = json.loads(rows[0][0])
        return found

    def find(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        status: str = "",
        waiting_for: str = "",
        before_ms: int | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return runs, newest first.

        Args:
            tenant: Only of this tenant.
            agent: Only of this agent.
            status: Only in this status.
            waiting_for: Only whose reason has this text.
            before_ms: Only those that were accepted or held before.
            limit: At most so many.
        """
        rows = self._rows(
            "select data from runs where (:tenant = '' or tenant = :tenant)"
            " and (:agent = '' or agent = :agent) and (:status = '' or status = :status)"
            " and (:waiting = '' or instr(reason, :waiting) > 0)"
            " and (:before is null or began_ms < :before)"
            " order by at_ms desc limit :limit",
            {
                "tenant": tenant,
                "agent": agent,
                "status": status,
                "waiting": waiting_for,
                "before": before_ms,
                "limit": limit,
            },
        )
        return [json.loads(row[0]) for row in rows]

    def events(self, run: str, *, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Return (id, event) of a run, by run id or task id, after an id."""
        rows = self._rows(
            "select e.seq, e.data from events e join runs r on r.run = e.run"
            " where (r.run = ? or r.task_id = ?) and e.seq > ? order by e.seq limit ?",
            (run, run, after, EVENTS_MAX),
        )
        return [(seq, json.loads(data)) for seq, data in rows]

    def _take(self, message: Any, meta: Meta) -> None:
        if isinstance(message, RunEvent):
            self._told(message, meta)

    def _told(self, event: RunEvent, meta: Meta) -> None:
        row = self._db.execute("select data from runs where run = ?", (event.run,)).fetchone()
        run: dict[str, Any] = (
            json.loads(row[0]) if row else {"calls": [], "accepted_ms": event.at_ms}
        )
        told = _plain(event)
        calls = {call["number"]: call for call in run["calls"]}
        for note in event.calls:
            calls[note.number] = _call(calls.get(note.number), note, event.at_ms)
        run |= told
        run["calls"] = [calls[number] for number in sorted(calls)]
        if event.status == "started":  # the turn that said so has come to rest: it waits
            run["status"] = "waiting"
        run["correlation_id"] = meta.correlation_id
        self._db.execute(
            "insert or replace into runs values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.run,
                event.task_id,
                event.agent,
                event.tenant,
                run["status"],
                event.reason,
                event.at_ms,
                run["accepted_ms"],
                json.dumps(run),
            ),
        )
        told["calls"] = [_note(note) for note in event.calls]
        self._db.execute(
            "insert into events (run, data) values (?, ?)", (event.run, json.dumps(told))
        )


def _plain(event: RunEvent) -> dict[str, Any]:
    """Return an event without its calls, its outcome read."""
    plain = {
        field.name: getattr(event, field.name)
        for field in dataclasses.fields(event)
        if field.name not in {"calls", "outcome"}
    }
    plain["outcome"] = json.loads(event.outcome) if event.outcome else None
    return plain


def _note(note: CallNote) -> dict[str, Any]:
    return {**dataclasses.asdict(note)}


def _call(before: dict[str, Any] | None, note: CallNote, at_ms: int) -> dict[str, Any]:
    """Merge what is told of a call now with what was told before."""
    call = before or {"asked_ms": at_ms}
    if note.approval and not note.verdict:  # another question: what was said of the one before goes
        call = {
            name: of for name, of in call.items() if name not in ("by", "verdict", "decided_ms")
        }
    told = {name: value for name, value in _note(note).items() if value not in ("", None)}
    answered = {"answered_ms": at_ms} if note.state in {"answered", "failed", "denied"} else {}
    decided = {"decided_ms": at_ms} if note.verdict else {}
    return {**call, **told, **answered, **decided}
