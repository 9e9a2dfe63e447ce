"""The meter: figures of what a process commits, and of the calls that it makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headwater.contracts.messages import Ask, Failed, InDoubt, Usage
from headwater.core.effector import UNKNOWN, Attempt, Call, Done, Effector, Verifier
from headwater.errors import TransientError
from headwater.runtime.committing import Taken
from headwater.runtime.observing import Observer

_NANO = 1e9
_CALL_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper ends of the buckets of calls' times, in seconds: from a look-up to what takes minutes."""


class Meter:
    """Counts what was committed and called, and passes what was committed on to tracing.

    Args:
        registry: Where the figures go.
        tracing: Told after the figures are.
    """

    def __init__(self, registry: CollectorRegistry, tracing: Observer) -> None:
        self._tracing = tracing
        self._turns = Counter("headwater_turns", "Turns committed.", ["decider"], registry=registry)
        self._refused = Counter(
            "headwater_refused",
            "Records put in quarantine.",
            ["decider", "code"],
            registry=registry,
        )
        self._commits = Histogram(
            "headwater_commit_seconds", "Time of one commit.", ["decider"], registry=registry
        )
        self._calls = Histogram(
            "headwater_call_seconds",
            "Time of one try at a call of a model or tool, by how it ended.",
            ["effector", "name", "ended"],
            buckets=_CALL_S,
            registry=registry,
        )
        self._tokens = Counter(
            "headwater_tokens",
            "Tokens that models read and wrote.",
            ["name", "way"],
            registry=registry,
        )
        self._usd = Counter(
            "headwater_usd",
            "What models' answers cost, in US dollars.",
            ["name"],
            registry=registry,
        )
        self._busy = Gauge(
            "headwater_calls_in_hand",
            "Requests that wait for their turn or are under way in this process.",
            ["effector"],
            registry=registry,
        )

    def watch(self, effector: str, in_hand: Callable[[], int]) -> None:
        """Have an effector's load read whenever the figures are.

        Args:
            effector: Its name.
            in_hand: Says how many requests it has.
        """
        self._busy.labels(effector).set_function(in_hand)

    def committed(self, decider: str, taken: Sequence[Taken], *, seconds: float) -> None:
        """Count a committed batch."""
        self._turns.labels(decider).inc(len(taken))
        self._commits.labels(decider).observe(seconds)
        for one in taken:
            if one.refused:
                self._refused.labels(decider, one.refused).inc()
        self._tracing.committed(decider, taken, seconds=seconds)

    def counted(self, effector: Effector) -> Effector:
        """Return an effector whose every try is counted; one that can verify still can."""
        kind = _CountedVerifier if isinstance(effector, Verifier) else _Counted
        return kind(effector, self._tried)

    def _tried(
        self, effector: str, name: str, ended: str, seconds: float, usage: Usage | None
    ) -> None:
        self._calls.labels(effector, name, ended).observe(seconds)
        if usage is not None:
            self._tokens.labels(name, "read").inc(usage.input_tokens)
            self._tokens.labels(name, "written").inc(usage.output_tokens)
            self._usd.labels(name).inc(usage.usd_nano / _NANO)


_Tried = Callable[[str, str, str, float, Usage | None], None]


class _Counted:
    """An effector whose tries are counted.

    Args:
        effector: What tries.
        tried: Told of each try: effector, name, how it ended, seconds, usage.
    """

    def __init__(self, effector: Effector, tried: _Tried) -> None:
        self._effector = effector
        self._tried = tried
        self.name = effector.name

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed | InDoubt:
        """Do it, and count it."""
        began_s, name, ended = time.monotonic(), ask.name, "failed"
        usage: Usage | None = None
        try:
            outcome = await self._effector.perform(call, ask, attempt)
        except TransientError:
            ended = "away"
            raise
        except asyncio.CancelledError:
            ended = "cut"
            raise
        else:
            if isinstance(outcome, Done):
                ended, usage = "answered", outcome.usage
            elif isinstance(outcome, Failed) and outcome.error == UNKNOWN:
                name = "unknown"  # somebody made it up: it would be a figure of its own for good
            return outcome
        finally:
            self._tried(self.name, name, ended, time.monotonic() - began_s, usage)


class _CountedVerifier(_Counted):
    """One that can find out whether a call happened."""

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> Done | InDoubt | None:
        """Say what a call led to; that is no try."""
        assert isinstance(self._effector, Verifier), "counted as one"
        return await self._effector.verify(call, ask, attempt)
