"""The run index: folded once, resumed from itself, filtered."""

from __future__ import annotations

import dataclasses
import sqlite3

from headwater.contracts.messages import CallNote, RunEvent, Usage
from headwater.contracts.records import Partition
from headwater.core.messages import Meta, Position
from headwater.views.runs import RunIndex

TOPIC = "hw.evt.runs.v1"
BASE = RunEvent(
    run="a.0.t1", task_id="t1", agent="a", tenant="x", status="started", started_ms=5, at_ms=10
)
ASKED = CallNote(number=1, kind="tool", name="look", state="asked")
ANSWERED = CallNote(number=1, kind="tool", name="look", state="answered", usage=Usage(model="m"))


def fold(index: RunIndex, *events: RunEvent, first: int = 0) -> None:
    meta = Meta(id="m", tenant="x", correlation_id="c")
    index.fold(
        [(Position("id", TOPIC, 0, first + n), meta, event) for n, event in enumerate(events)]
    )


def later(event: RunEvent = BASE, **changes) -> RunEvent:
    return dataclasses.replace(event, **changes)


def test_event_that_comes_twice_counts_once():
    """Values and offsets are one write, so a replayed batch changes nothing."""
    index = RunIndex(TOPIC)
    events = (
        later(calls=(ASKED,)),
        later(calls=(ANSWERED,), status="completed", outcome=b"7", at_ms=30),
    )
    fold(index, *events)
    fold(index, *events)
    run = index.get("t1")
    assert (run["status"], run["outcome"], run["correlation_id"]) == ("completed", 7, "c")
    (call,) = run["calls"]
    assert (call["state"], call["asked_ms"], call["answered_ms"]) == ("answered", 10, 30)
    assert len(index.events("a.0.t1")) == 2
    assert index.events("t1", after=1)[0][1]["calls"][0]["state"] == "answered"


def test_index_resumes_where_its_file_is(tmp_path):
    """It asks for what it has not; a deleted file starts at the beginning."""
    path = str(tmp_path / "runs.db")
    index = RunIndex(TOPIC, path)
    assert index.resume() == {}
    fold(index, BASE)
    index.close()
    again = RunIndex(TOPIC, path)
    assert again.resume() == {Partition(TOPIC, 0): 1}
    fold(again, None, first=1)
    assert again.resume() == {Partition(TOPIC, 0): 2}
    assert again.get("t1")["status"] == "waiting"
    again.close()


def test_runs_are_found_by_what_people_ask_for():
    """Tenant, agent, status, what it waits for, age; newest first, at most so many."""
    index = RunIndex(TOPIC)
    fold(
        index,
        BASE,
        later(
            run="a.0.t2", task_id="t2", tenant="y", at_ms=20, reason="signal go", status="waiting"
        ),
        later(run="b.0.t3", task_id="t3", agent="b", at_ms=30, status="failed"),
    )

    def found(**filters) -> list[str]:
        return [run["task_id"] for run in index.find(**filters)]

    assert found() == ["t3", "t2", "t1"]
    assert found(tenant="y") == ["t2"]
    assert found(agent="b") == ["t3"]
    assert found(status="waiting") == ["t2", "t1"]
    assert found(waiting_for="go") == ["t2"]
    assert found(before_ms=25) == ["t2", "t1"]
    assert found(limit=1) == ["t3"]
    assert index.get("t2", tenant="x") is None
    assert index.get("nobody") is None


def test_a_run_that_has_started_waits() -> None:
    """What says that it started is said once its first turn has come to rest; its event stays as it was."""
    index = RunIndex(TOPIC)
    fold(index, later(reason="signal go"))
    assert index.get("t1")["status"] == "waiting"
    assert [event["status"] for _, event in index.events("t1")] == ["started"]


def test_age_is_counted_from_the_beginning():
    """A run that has just said something is as old as it is."""
    index = RunIndex(TOPIC)
    fold(index, BASE, later(status="waiting", at_ms=1_000))
    assert [run["task_id"] for run in index.find(before_ms=500)] == ["t1"]
    assert index.find(before_ms=10) == []


def test_file_of_another_version_is_built_again(tmp_path):
    """Tables of an older headwater are emptied, offsets too: the log has everything."""
    path = str(tmp_path / "runs.db")
    old = sqlite3.connect(path)
    old.execute("create table runs (run text)")
    old.execute("create table offsets (topic text, number integer, next_offset integer)")
    old.execute("insert into offsets values (?, 0, 9)", (TOPIC,))
    old.commit()
    old.close()
    index = RunIndex(TOPIC, path)
    assert index.resume() == {}
    fold(index, BASE)
    assert index.get("t1")["status"] == "waiting"
    index.close()
