"""Named points of a process at which it can be killed, without a line of them in the product.

A child that calls `arm` dies by SIGKILL when it passes one of them for the n-th time. The seed, the
instance's name and how often it has died give n, so a seed kills at the same passes again. Points of
calls count one safety a life, so that each kind of call meets its death.
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import threading
from collections.abc import Collection
from typing import Any

from headwater.durable import confine
from headwater.log import kafka_transactor
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_worker import KafkaWorker
from headwater.runtime.answering import Answering
from headwater.runtime.noting import Noting
from headwater.runtime.performing import Performing

TRANSACTIONS, INTENTS, CALLS = (8, 60), (3, 20), (20, 150)
"""Fewest and most passes before a death in a run of `TASKS`, of transactions, INTENTs and calls."""
TASKS = 2_000
SAFETIES = ("irreversible", "paid", "write")
"""Of the calls whose passes count in the first life, the second and the third."""
PASSES = {
    "after-poll": TRANSACTIONS,
    "after-produce": TRANSACTIONS,
    "before-send-offsets": TRANSACTIONS,
    "after-send-offsets": TRANSACTIONS,
    "during-end-txn": TRANSACTIONS,
    "after-intent": INTENTS,
    "after-answer": CALLS,
    "after-result": CALLS,
    "before-reply": CALLS,
    "after-reply": CALLS,
}
END_TXN_S_MAX = 0.004
"""How far into the end of a transaction a death comes at most."""
CALL_S_MAX = 0.03
"""How far beyond an INTENT: some calls have not begun by then, others are in their middle."""


def passes(name: str, tasks: int) -> tuple[int, int]:
    """Return fewest and most passes before a death, in a run of so many tasks."""
    fewest, most = PASSES[name]
    return max(2, fewest * min(tasks, TASKS) // TASKS), max(4, most * min(tasks, TASKS) // TASKS)


class Points:
    """Counts passes of one point, and dies at the n-th.

    Args:
        name: Which of `PASSES`.
        seed: The run's.
        instance: Of this process.
        deaths: Directory of a file per instance, a line a death.
        deaths_max: After so many this instance is spared.
        passes: Fewest and most passes before a death.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        instance: str,
        deaths: pathlib.Path,
        deaths_max: int,
        passes: tuple[int, int],
    ) -> None:
        self.name = name
        self._path = deaths / f"{instance}.deaths"
        died = len(self._path.read_text().splitlines()) if self._path.exists() else 0
        self._dice = random.Random(f"{seed}/{instance}/{died}")
        self._left = self._dice.randint(*passes) if died < deaths_max else 0
        self._safety = SAFETIES[died % len(SAFETIES)]
        self._lock = threading.Lock()

    def called(self, name: str, safety: str) -> None:
        """Count a pass of a call, if it is one of those that count in this life."""
        if safety == self._safety:
            self.passed(name)

    def passed(self, name: str, *, within_s: float = 0.0) -> None:
        """Count a pass; at the last, die here or a moment later."""
        with self._lock:
            if name != self.name or not self._left:
                return
            self._left -= 1
            if self._left:
                return
            delay_s = self._dice.uniform(0, within_s)
        if within_s:
            threading.Timer(delay_s, self._die).start()
        else:
            self._die()

    def _die(self) -> None:
        with self._path.open("a") as file:
            file.write(f"{confine.wall_ms()}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def arm(points: Points) -> None:
    """Have this process pass its points."""
    _arm_transactions(points)
    _arm_polls(points)
    _arm_calls(points)


def _arm_transactions(points: Points) -> None:
    class Deadly(kafka_transactor.Producer):  # type: ignore[misc,name-defined] # the client has no types
        def send_offsets_to_transaction(self, *args: Any) -> None:
            points.passed("after-produce")
            if points.name == "before-send-offsets":
                self.flush(*args[2:])  # the records are there, and otherwise on their way
            points.passed("before-send-offsets")
            super().send_offsets_to_transaction(*args)
            points.passed("after-send-offsets")

        def commit_transaction(self, *args: Any) -> None:
            if points.name == "during-end-txn":
                self.flush(*args)  # as above
            points.passed("during-end-txn", within_s=END_TXN_S_MAX)
            super().commit_transaction(*args)

    kafka_transactor.Producer = Deadly  # type: ignore[attr-defined] # it is imported there


def _arm_polls(points: Points) -> None:
    real = KafkaOwner.poll

    def poll(self: KafkaOwner, **bounds: int) -> Any:
        found = real(self, **bounds)
        if found.records:
            points.passed("after-poll")
        return found

    KafkaOwner.poll = poll  # type: ignore[method-assign] # that is the point


def _arm_calls(points: Points) -> None:
    intend, answer, note, send = (
        KafkaWorker.intend,
        Answering.reply,
        Noting._note,
        Performing._send,
    )

    def intended(self: KafkaWorker, work: Collection[Any]) -> Any:
        held = intend(self, [*work])
        if held:
            points.passed("after-intent", within_s=CALL_S_MAX)
        return held

    async def answered(self: Answering, item: Any, **kwargs: Any) -> Any:
        reply = await answer(self, item, **kwargs)
        points.called("after-answer", item.ask.safety)
        return reply

    async def noted(self: Noting, item: Any, reply: Any) -> Any:
        found = await note(self, item, reply)
        points.called("after-result", item.ask.safety)
        return found

    async def sent(self: Performing, item: Any, reply: Any) -> Any:
        points.called("before-reply", item.ask.safety)
        return await send(self, item, reply)

    KafkaWorker.intend = intended  # type: ignore[method-assign] # that is the point
    Answering.reply = answered  # type: ignore[method-assign] # that is the point
    Noting._note = noted  # type: ignore[method-assign] # that is the point
    Performing._send = sent  # type: ignore[method-assign] # that is the point
