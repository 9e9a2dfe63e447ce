"""Short ways to play the host of one durable function."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from headwater.contracts.messages import Answered
from headwater.core.execution import Answer, Begin, Cancel, Delivery, Returned, Signal, Step, Tick
from headwater.durable.running import Running, Session, current

Function = Callable[[Session], Coroutine[Any, Any, bytes]]


class Play:
    """A function begun at run time 0, and its host."""

    def __init__(self, function: Function, **options: Any) -> None:
        self.running = Running(function, seed="run", **options)
        self.now_ms = 0
        self.first = self.deliver(Begin())

    def deliver(self, delivery: Delivery, *, after_ms: int = 0) -> Step:
        self.now_ms += after_ms
        return self.running.deliver(delivery, now_ms=self.now_ms)

    def answer(self, number: int, value: bytes = b"", *, after_ms: int = 0) -> Step:
        return self.deliver(Answer(number=number, outcome=Answered(value=value)), after_ms=after_ms)

    def tick(self, after_ms: int) -> Step:
        return self.deliver(Tick(), after_ms=after_ms)

    def signal(self, name: str, value: bytes = b"", *, after_ms: int = 0) -> Step:
        return self.deliver(Signal(name=name, value=value), after_ms=after_ms)

    def cancel(self, reason: str = "enough") -> Step:
        return self.deliver(Cancel(reason=reason))


async def ask(name: str) -> bytes:
    """Ask for a tool and return its value."""
    return bytes((await current().ask("tool", name, name.encode())).value)


def run(act: Callable[[], Any], *, seed: str = "r", now_ms: int = 0) -> Any:
    """Return what `act` returns inside a turn, by way of JSON."""

    async def main(session: Session) -> bytes:
        return json.dumps(act(), default=str).encode()

    ended = Running(main, seed=seed).deliver(Begin(), now_ms=now_ms).ended
    assert isinstance(ended, Returned), ended
    return json.loads(ended.value)
