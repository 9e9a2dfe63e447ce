"""What people are asked and how they decided, folded from the events of approvals."""

from __future__ import annotations

import json
from typing import Any

from headwater.contracts.approvals import ApprovalEvent
from headwater.core.messages import Meta
from headwater.views.filed import Filed

_TABLES = {
    "approvals": """
create table if not exists approvals (
  tenant text, approval text, status text, run text, asks text, expires_ms integer, asked_ms integer,
  data text, primary key (tenant, approval)
);
create index if not exists approvals_open on approvals (status, expires_ms);
"""
}
_VERSION = 1
REFUSED_MAX = 20
"""Refused decisions that are shown of one approval: the newest."""


class ApprovalIndex(Filed):
    """An index in SQLite; delete its file and it is built again from the log.

    Args:
        topic: The topic of approvals' events.
        path: Its file; `:memory:` forgets at exit.
    """

    def __init__(self, topic: str, path: str = ":memory:") -> None:
        super().__init__(topic, path, tables=_TABLES, version=_VERSION)

    def get(self, approval: str, *, tenant: str = "") -> dict[str, Any] | None:
        """Return one approval; of several tenants' with one id, which is as good as none, the first.

        Args:
            approval: Its id.
            tenant: Only of this tenant.
        """
        rows = self._rows(
            "select data from approvals where approval = :approval"
            " and (:tenant = '' or tenant = :tenant) order by tenant limit 1",
            {"approval": approval, "tenant": tenant},
        )
        found: dict[str, Any] | None = json.loads(rows[0][0]) if rows else None
        return found

    def find(
        self, *, tenant: str = "", status: str = "", run: str = "", to: str = "", limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return approvals, the soonest to expire first.

        Args:
            tenant: Only of this tenant.
            status: Only in this status: `open`, or how it ended.
            run: Only of this run.
            to: Only put to this actor, or `group:<name>`.
            limit: At most so many.
        """
        rows = self._rows(
            "select data from approvals where (:tenant = '' or tenant = :tenant)"
            " and (:status = '' or status = :status) and (:run = '' or run = :run)"
            " and (:to = '' or asks = :to) order by status != 'open', expires_ms, approval"
            " limit :limit",
            {"tenant": tenant, "status": status, "run": run, "to": to, "limit": limit},
        )
        return [json.loads(row[0]) for row in rows]

    def _take(self, message: Any, meta: Meta) -> None:
        if isinstance(message, ApprovalEvent):
            self._told(message)

    def _told(self, event: ApprovalEvent) -> None:
        row = self._db.execute(
            "select data from approvals where tenant = ? and approval = ?",
            (event.tenant, event.approval),
        ).fetchone()
        before: dict[str, Any] = json.loads(row[0]) if row else {"status": "open", "refused": []}
        told = {**before, **_plain(event)}
        if not event.shown and "arguments" in before:
            told["arguments"] = before["arguments"]
        if event.status == "refused":
            refusal = {
                "by": event.by,
                "why": event.why,
                "at_ms": event.at_ms,
                "decision": event.decision,
            }
            told["refused"] = [*before["refused"], refusal][-REFUSED_MAX:]
        elif event.status != "asked":
            told |= {
                "status": event.status,
                "by": event.by,
                "reason": event.why,
                "decided_ms": event.at_ms,
                "decision": event.decision,
            }
        self._db.execute(
            "insert or replace into approvals values (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.tenant,
                event.approval,
                told["status"],
                event.run,
                event.to,
                event.expires_ms,
                event.asked_ms,
                json.dumps(told),
            ),
        )


def _plain(event: ApprovalEvent) -> dict[str, Any]:
    """Return what every event of an approval tells."""
    return {
        "id": event.approval,
        "tenant": event.tenant,
        "run": event.run,
        "number": event.number,
        "about": event.about,
        "name": event.name,
        "words": event.words,
        "arguments": _json(event.shown),
        "digest": event.digest.hex(),
        "to": event.to,
        "requester": event.requester,
        "asked_ms": event.asked_ms,
        "expires_ms": event.expires_ms,
    }


def _json(shown: bytes) -> Any:
    """Return what people are shown; text that is no JSON as it is."""
    try:
        return json.loads(shown)
    except ValueError:
        return shown.decode(errors="replace")
