"""A world that answers random programs in any order, and replays of what it did, here and elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.unit.durable.programs import Interpreter, Program

from headwater.contracts.messages import Answered, Failed
from headwater.core.execution import Answer, Begin, Cancel, Delivery, Signal, Step, Tick
from headwater.durable.replay import Recorded, rebuild
from headwater.durable.running import Running
from headwater.errors import LivelockError

SEED = "agent.0.program"
CALLBACKS_MAX = 3_000
LIVELOCK = "livelock"


def begin(program: Program) -> Running:
    """Return a fresh execution of a program."""
    return Running(Interpreter(program).main, seed=SEED, callbacks_max=CALLBACKS_MAX)


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What was delivered to a program, and what each delivery led to; `None` marks a livelock."""

    program: Program
    turns: Sequence[tuple[Delivery, int]]
    steps: Sequence[Step | None]

    @property
    def recorded(self) -> list[Recorded]:
        """The turns as a journal keeps them; the one that never ended is not in it."""
        return [
            Recorded(delivery=delivery, now_ms=now_ms, calls=step.asked)
            for (delivery, now_ms), step in zip(self.turns, self.steps, strict=True)
            if step is not None
        ]


def play(program: Program, seed: int, *, turns_max: int = 40) -> History:
    """Let a world answer a program: in any order, late, twice, with signals, and sometimes cancel it."""
    dice = random.Random(seed)
    running = begin(program)
    now_ms = 1_700_000_000_000
    turns: list[tuple[Delivery, int]] = [(Begin(), now_ms)]
    steps: list[Step | None] = []
    waiting: list[int] = []
    answered: list[int] = []
    while len(turns) <= turns_max:
        delivery, at = turns[-1]
        try:
            step = running.deliver(delivery, now_ms=at)
        except LivelockError:
            steps.append(None)
            break
        steps.append(step)
        waiting += [call.number for call in step.asked]
        if step.ended is not None or len(turns) == turns_max:
            break
        pick = dice.random()
        if waiting and pick < 0.7:
            number = waiting.pop(dice.randrange(len(waiting)))
            answered.append(number)
            fails = dice.random() < 0.1
            outcome: Any = (
                Failed(error="Away", detail=f"no {number}")
                if fails
                else Answered(value=b"v%d" % number)
            )
            delivery = Answer(number=number, outcome=outcome)
        elif pick < 0.75:
            late = dice.choice(answered) if answered and dice.random() < 0.5 else 999
            delivery = Answer(number=late, outcome=Answered(value=b"late"))
        elif pick < 0.82:
            delivery = Signal(name=dice.choice(("go", "stop", "other")), value=b"{}")
        elif pick < 0.85:
            delivery = Cancel(reason="not wanted")
        elif step.wake_ms is not None:
            now_ms = max(now_ms, dice.choice((step.wake_ms, step.wake_ms + 3, now_ms)))
            delivery = Tick()
        elif waiting:
            continue_with = waiting.pop(0)
            answered.append(continue_with)
            delivery = Answer(number=continue_with, outcome=Answered(value=b"v%d" % continue_with))
        else:
            delivery = Signal(name="go", value=b"{}")
        now_ms += dice.choice((0, 0, 1, 4))
        turns.append((delivery, now_ms))
    running.close()
    return History(program=program, turns=turns, steps=steps)


def again(history: History) -> list[str]:
    """Replay a history in this process; return its steps as text."""
    running = begin(history.program)
    told = []
    for delivery, now_ms in history.turns:
        try:
            told.append(repr(running.deliver(delivery, now_ms=now_ms)))
        except (LivelockError, RuntimeError) as error:
            told.append(LIVELOCK if isinstance(error, LivelockError) else str(error))
            break
    running.close()
    return told


def told(history: History) -> list[str]:
    """Return a history's steps as text."""
    return [LIVELOCK if step is None else repr(step) for step in history.steps]


def crash_everywhere(history: History) -> list[str]:
    """Take a history's turns, dropping the execution and rebuilding it before each; return its steps."""
    found = []
    for place, (delivery, now_ms) in enumerate(history.turns):
        running = begin(history.program)
        rebuilt = rebuild(running, history.recorded[:place])
        assert not rebuilt.changed
        try:
            found.append(repr(running.deliver(delivery, now_ms=now_ms)))
        except LivelockError:
            found.append(LIVELOCK)
        running.close()
    return found


def main() -> None:
    """Replay histories that another process made: program and turns in, steps out, a line each."""
    for line in sys.stdin:
        program, turns = json.loads(line)
        history = History(
            program=program,
            turns=[(eval(delivery), now_ms) for delivery, now_ms in turns],  # noqa: S307 - our own repr
            steps=[],
        )
        sys.stdout.write(json.dumps(again(history)) + "\n")


def elsewhere(
    histories: Sequence[History], *, hash_seed: int, prelude: str = ""
) -> list[list[str]]:
    """Replay histories in a fresh process with another hash seed; return their steps as text."""
    lines = [
        json.dumps([one.program, [(repr(delivery), now_ms) for delivery, now_ms in one.turns]])
        for one in histories
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{prelude}\nfrom tests.unit.durable import histories; histories.main()",
        ],
        input="\n".join(lines),
        env={
            **os.environ,
            "PYTHONHASHSEED": str(hash_seed),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
