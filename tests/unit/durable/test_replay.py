"""Replayed code must ask for what the journal has; where it does not, the message says what to mend."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from tests.unit.durable.plays import Function

from headwater.contracts.messages import Answered
from headwater.core.execution import Answer, Begin, CallKind, Delivery, Step, Tick
from headwater.durable.replay import FreshOnly, Recorded, rebuild
from headwater.durable.running import Running, Session, current
from headwater.errors import NonDeterminismError


@dataclasses.dataclass(frozen=True)
class Call:
    number: int
    kind: CallKind
    name: str
    digest: bytes


def asks(*names: str, argument: bytes = b"") -> Function:
    async def main(session: Session) -> bytes:
        for name in names:
            await session.ask("tool", name, argument)
        return b""

    return main


def journal(function: Function) -> list[Recorded]:
    """Run a function to its end, answering each call; return its journal."""
    running = Running(function, seed="r")
    turns: list[Recorded] = []
    delivery: Delivery = Begin()
    while True:
        step = running.deliver(delivery, now_ms=len(turns))
        calls = [Call(one.number, one.kind, one.name, one.digest) for one in step.asked]
        turns.append(Recorded(delivery=delivery, now_ms=len(turns), calls=calls))
        if step.ended is not None:
            return turns
        delivery = Answer(number=calls[-1].number, outcome=Answered(value=b""))


def replay(function: Function, entries: list[Recorded]) -> None:
    running = Running(function, seed="r")
    try:
        rebuild(running, entries)
    finally:
        running.close()


def test_same_code_rebuilds_to_the_same_step() -> None:
    """What the last turn led to is handed back."""
    entries = journal(asks("a", "b"))
    assert rebuild(Running(asks("a", "b"), seed="r"), entries).step == Step(
        ended=Running(asks(), seed="r").deliver(Begin(), now_ms=1).ended
    )
    nothing = rebuild(Running(asks(), seed="r"), [])
    assert (nothing.step, nothing.numbers) == (None, ())


@pytest.mark.parametrize(
    ("names", "number", "recorded", "actual"),
    [
        (("a", "x"), 2, "tool b", "tool x"),
        (("a",), 2, "tool b", "nothing"),
        (("a", "b", "c"), 3, "nothing", "tool c"),
        ((), 1, "tool a", "nothing"),
    ],
)
def test_other_call_is_told_with_number_recorded_and_actual(
    names: tuple[str, ...], number: int, recorded: str, actual: str
) -> None:
    """A developer learns which call differs, and how."""
    with pytest.raises(NonDeterminismError, match="restore the code") as told:
        replay(asks(*names), journal(asks("a", "b")))
    assert (told.value.number, told.value.recorded, told.value.actual) == (number, recorded, actual)


def test_function_that_ends_early_is_told() -> None:
    """Today's code must not end where the recorded one waited."""

    async def waits(session: Session) -> bytes:
        await session.receive("")
        return b""

    entries = [
        Recorded(delivery=Begin(), now_ms=0),
        Recorded(delivery=Tick(), now_ms=1),
    ]
    replay(waits, entries)
    with pytest.raises(NonDeterminismError, match=r"call 1 .* after a Tick.* it has ended"):
        replay(asks(), entries)


def test_other_arguments_are_reported_to_the_host() -> None:
    """Whether that holds the run or is a warning depends on what the call does: the host knows."""
    entries = journal(asks("a", "b"))
    rebuilt = rebuild(Running(asks("a", "b", argument=b"other"), seed="r"), entries)
    assert rebuilt.numbers == (1, 2)
    assert [call.name for call in rebuilt.changed] == ["a", "b"]


def test_logs_of_replayed_turns_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What was logged before the crash is not logged again, and what comes after is."""
    logger = logging.getLogger("test.replay")
    caplog.handler.addFilter(fresh := FreshOnly())

    async def main(session: Session) -> bytes:
        logger.warning("first, replaying %s", session.replaying)
        await session.ask("tool", "a", b"")
        logger.warning("second, replaying %s", current().replaying)
        return b""

    try:
        entries = journal(main)
        running = Running(main, seed="r")
        rebuild(running, entries[:1])
        running.deliver(entries[1].delivery, now_ms=1)
        logger.warning("outside")
    finally:
        caplog.handler.removeFilter(fresh)
    assert [record.getMessage() for record in caplog.records] == [
        "first, replaying False",
        "second, replaying False",
        "second, replaying False",
        "outside",
    ]
