"""The world outside: providers and services that the fleet calls, which see everything and forget nothing.

What they do to a call is drawn from the seed and the call itself, so another history makes of it the
same: slow, away for a while before or after it acted, or certain that nothing happened.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from typing import Any, NamedTuple

from headwater.contracts.messages import Ask, Failed, InDoubt
from headwater.core.decider import Decider, Turn
from headwater.core.effector import Attempt, Call, Done, Effector, Safety, Verifier
from headwater.errors import NotDone, TransientError
from headwater.testing.invariants import Act
from headwater.testing.simulator.storm import Storm

AWAY_MAX = 3
"""How often in a row the outside is away for one call."""
SLOW_MS_MAX = 300


class Under(NamedTuple):
    """The call under way in this task."""

    call: Call
    attempt: Attempt
    name: str
    instance: str
    outside: Outside | Calm


_under: contextvars.ContextVar[Under] = contextvars.ContextVar("under")


async def act(value: str) -> str:
    """Have an effect in the world that this call is made in; return what it led to."""
    return await _under.get().outside.act(value)


def found() -> str | None:
    """Return what this call led to, if it happened."""
    under = _under.get()
    return under.outside.done.get(under.call.id)


class Calm:
    """A world in which whatever is done happens at once."""

    def __init__(self) -> None:
        self.done: dict[str, str] = {}

    async def act(self, value: str) -> str:
        """Have an effect."""
        return value


def calmly(call: Call, attempt: Attempt, name: str) -> None:
    """Have the call that this task makes act on a world where nothing goes wrong."""
    _under.set(Under(call, attempt, name, "", Calm()))


class Outside:
    """Everything beyond the log.

    Args:
        seed: Chooses how it behaves.
        storm: What may break around an effect.
        near: Whether a call's arguments are at hand; else its process may stand still while it has
            them fetched, after its last look at the log.
    """

    def __init__(self, seed: int, storm: Storm, *, near: bool) -> None:
        self._near = near
        self.acts: list[Act] = []
        """Every effect, in order."""
        self.done: dict[str, str] = {}
        """What a call led to, by its idempotency key."""
        self.counts: Counter[str] = Counter()
        """What it did to calls, how often."""
        self.away: set[str] = set()
        """Calls that it was away for without a word on whether they happened."""
        self._seed = seed
        self._storm = storm
        self._tries: dict[str, int] = {}
        self._acted: dict[str, int] = {}
        self._began: dict[str, tuple[int, int]] = {}

    def begin(self, call: Call, attempt: str) -> None:
        """Take a call in hand.

        One that was noted before, in a transaction, has seen the log just now; any other as long ago as
        its process began to move.
        """
        noted = call.safety is Safety.IRREVERSIBLE or (
            call.safety is Safety.WRITE and bool(call.order_key)
        )
        stills = self._storm.stills(now=noted and self._near)
        self._began.setdefault(attempt, (self._storm.clock.now_ms, stills))

    async def act(self, value: str) -> str:
        """Have an effect once the world lets it; return what it led to."""
        under = _under.get()
        call, key = under.call, under.call.id
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        dice = random.Random(f"{self._seed}/{key}/{tries}")  # noqa: S311 - a seeded world
        roll = dice.random()
        if roll < 0.12 and tries <= AWAY_MAX:  # noqa: PLR2004 - one in eight is away, for certain
            if roll < 0.08:  # noqa: PLR2004 - two thirds of them say that nothing happened
                self.counts["the world is away, nothing happened"] += 1
                raise NotDone("the world is away")
            self.away.add(key)
            self.counts["the world is away"] += 1
            raise TransientError("away")
        if dice.random() < 0.2:  # noqa: PLR2004 - one in five is slow
            self.counts["a slow call"] += 1
            self._storm.under_way(under.name)
            await asyncio.sleep(dice.randint(1, SLOW_MS_MAX) / 1000)
        self._storm.reach(f"before {under.name}")
        self._note(under)
        answer = self.done.setdefault(key, value)
        self._storm.reach(f"after {under.name}")
        if dice.random() < 0.1:  # noqa: PLR2004 - one in ten answers slowly
            self.counts["a slow answer"] += 1
            await asyncio.sleep(dice.randint(1, SLOW_MS_MAX) / 1000)
        if dice.random() < 0.04 and tries <= AWAY_MAX and call.safety is not Safety.PAID:  # noqa: PLR2004 - a lost answer
            self.away.add(key)
            self.counts["an answer is lost"] += 1
            raise TransientError("the answer is lost")
        return answer

    def _note(self, under: Under) -> None:
        began_ms, stills = self._began[under.attempt.id]
        count = self._acted[under.attempt.id] = self._acted.get(under.attempt.id, 0) + 1
        self.acts.append(
            Act(
                key=under.call.id,
                name=under.name,
                safety=under.call.safety.value,
                holder=under.instance,
                at_ms=self._storm.clock.now_ms,
                attempt=count,
                order_key=under.call.order_key,
                began_ms=began_ms,
                late=self._storm.stills(now=True) > stills,
            )
        )


class Interrupted:
    """A decider that now and then meets something that is away, before its turn or at its end.

    Args:
        decider: The decider.
        storm: What may break.
    """

    def __init__(self, decider: Decider[Any], storm: Storm) -> None:
        self.name, self.takes = decider.name, decider.takes
        self.refused, self.forget = decider.refused, decider.forget
        self._decider = decider
        self._storm = storm

    def react(self, turn: Turn, message: Any) -> None:
        """React, unless what it takes is away."""
        self._storm.missed(f"start of a turn of {self.name}")
        self._decider.react(turn, message)
        self._storm.missed(f"end of a turn of {self.name}")


class Watched:
    """An effector whose functions find the call they are made for.

    Args:
        effector: The effector.
        outside: What they act on.
        instance: The process's name in receipts.
    """

    def __init__(self, effector: Effector, outside: Outside, instance: str) -> None:
        self.name = effector.name
        self._effector = effector
        self._outside = outside
        self._instance = instance

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed | InDoubt:
        """Do it, seen."""
        self._outside.begin(call, attempt.id)
        _under.set(Under(call, attempt, ask.name, self._instance, self._outside))
        return await self._effector.perform(call, ask, attempt)

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> Done | InDoubt | None:
        """Ask whether a call happened."""
        _under.set(Under(call, attempt, ask.name, self._instance, self._outside))
        assert isinstance(self._effector, Verifier), "tools are"
        return await self._effector.verify(call, ask, attempt)
