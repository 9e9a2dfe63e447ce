"""The index of approvals: folded once, resumed from itself, filtered."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

from headwater.contracts.approvals import ApprovalEvent
from headwater.contracts.records import Partition
from headwater.core.messages import Meta, Position
from headwater.views.approvals import REFUSED_MAX, ApprovalIndex

TOPIC = "hw.evt.approvals.v1"
ASKED = ApprovalEvent(
    approval="p1", tenant="t1", run="desk.0.a", number=3, about="tool", name="pay", words="call pay",
    digest=b"\x01\x02", shown=b'{"cents": 7}', to="group:payments", expires_ms=90, requester="kim",
    status="asked", asked_ms=10, at_ms=10,
)  # fmt: skip


def fold(index: ApprovalIndex, *events: Any, first: int = 0) -> None:
    meta = Meta(id="m", tenant="t1")
    index.fold(
        [(Position("id", TOPIC, 0, first + n), meta, event) for n, event in enumerate(events)]
    )


def then(status: Any, **more: Any) -> ApprovalEvent:
    return dataclasses.replace(ASKED, status=status, at_ms=20, **more)


def test_it_tells_what_is_asked_and_how_it_ended() -> None:
    """One row each, whatever comes twice."""
    index = ApprovalIndex(TOPIC)
    events = (
        ASKED,
        then("refused", by="kim", why="not you", decision="d1"),
        then("approved", by="ana", why="checked", decision="d2"),
        then("refused", by="bob", why="too late", decision="d3", shown=b""),
    )
    fold(index, *events)
    fold(index, *events)
    found = index.get("p1", tenant="t1")
    assert found == {
        "id": "p1",
        "tenant": "t1",
        "run": "desk.0.a",
        "number": 3,
        "about": "tool",
        "name": "pay",
        "words": "call pay",
        "arguments": {"cents": 7},
        "digest": "0102",
        "to": "group:payments",
        "requester": "kim",
        "asked_ms": 10,
        "expires_ms": 90,
        "status": "approved",
        "by": "ana",
        "reason": "checked",
        "decided_ms": 20,
        "decision": "d2",
        "refused": [
            {"by": "kim", "why": "not you", "at_ms": 20, "decision": "d1"},
            {"by": "bob", "why": "too late", "at_ms": 20, "decision": "d3"},
        ],
    }


def test_a_refusal_leaves_it_open_and_the_newest_are_kept() -> None:
    """Whoever is refused changes nothing."""
    index = ApprovalIndex(TOPIC)
    fold(index, ASKED, *(then("refused", by=f"b{n}", why="no") for n in range(REFUSED_MAX + 5)))
    found = index.get("p1")
    assert found is not None
    assert found["status"] == "open"
    assert [of["by"] for of in found["refused"]][-1] == f"b{REFUSED_MAX + 4}"
    assert len(found["refused"]) == REFUSED_MAX


def test_filters_and_order() -> None:
    """What expires first comes first, and what is over last; other tenants' are not seen."""
    index = ApprovalIndex(TOPIC)
    later = dataclasses.replace(ASKED, approval="p2", expires_ms=100, run="desk.0.b", to="")
    sooner = dataclasses.replace(ASKED, approval="p3", expires_ms=50)
    other = dataclasses.replace(ASKED, tenant="t2", shown=b"no json")
    fold(index, later, sooner, ASKED, then("denied", by="ana"), other)

    def ids(**filters: Any) -> list[str]:
        return [f"{of['tenant']}/{of['id']}" for of in index.find(**filters)]

    assert ids() == ["t1/p3", "t2/p1", "t1/p2", "t1/p1"]
    assert ids(tenant="t1", status="open") == ["t1/p3", "t1/p2"]
    assert ids(status="denied") == ["t1/p1"]
    assert ids(run="desk.0.b") == ["t1/p2"]
    assert ids(to="group:payments", limit=1) == ["t1/p3"]
    assert index.get("p1", tenant="t3") is None
    assert (index.get("p1", tenant="t2") or {})["arguments"] == "no json"


def test_it_resumes_where_its_file_is(tmp_path: Any) -> None:
    """A file of other tables is built again from the log."""
    path = str(tmp_path / "approvals.db")
    index = ApprovalIndex(TOPIC, path)
    assert index.resume() == {}
    fold(index, ASKED, None)
    index.close()
    again = ApprovalIndex(TOPIC, path)
    assert again.resume() == {Partition(TOPIC, 0): 2}
    again.close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version=99")
    db.close()
    emptied = ApprovalIndex(TOPIC, path)
    assert (emptied.resume(), emptied.get("p1")) == ({}, None)
    emptied.close()
