"""The meter: figures of what a process commits, and of the calls that it makes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headwater.contracts.messages import Ask, Failed, InDoubt, Usage
from headwater.core.effector import UNKNOWN, Attempt, Call, Done, Effector, Verifier
from headwater.errors import TransientError
from headwater.runtime.committing import Taken
from headwater.runtime.observing import Observer

logger = logging.getLogger(__name__)

QUIET_S = 30.0
"""A try that has said nothing for so long is worth a line in the log: its provider may hang."""
SAID_S = 60.0
"""While that goes on, a line follows at most so often for each name."""
LOOK_S = 5.0
"""How often is looked for such tries."""
_NANO = 1e9
_CALL_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper ends of the buckets of calls' times, in seconds: from a look-up to what takes minutes."""


class Meter:
    """Counts what was committed and called, and passes what was committed on to tracing.

    Args:
        registry: Where the figures go.
        tracing: Told after the figures are.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        tracing: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracing = tracing
        self._clock = clock
        self._tries: dict[_Try, None] = {}
        self._next_s: dict[tuple[str, str], float] = {}
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

        self._quiet = Gauge(
            "headwater_quiet_call_seconds",
            "Longest time that a try at a call, still under way, has said nothing; 0 where there is none.",
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
        self._quiet.labels(effector.name).set_function(lambda: self._quiet_s(effector.name))
        return kind(effector, self)

    async def follow(self, stop: asyncio.Event, *, look_s: float = LOOK_S) -> None:
        """Look for tries that say nothing, until told to stop."""
        while not stop.is_set():
            self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), look_s)

    def look(self) -> None:
        """Log of each name whose tries say nothing how many these are, and the longest of them."""
        now_s = self._clock()
        quiet: dict[tuple[str, str], list[_Try]] = {}
        for one in [*self._tries]:
            if now_s - one.heard_s >= QUIET_S:
                quiet.setdefault((one.effector, one.name), []).append(one)
        self._next_s = {name: at_s for name, at_s in self._next_s.items() if name in quiet}
        for (effector, name), tries in quiet.items():
            if now_s < self._next_s.get((effector, name), 0.0):
                continue
            longest = min(tries, key=lambda one: one.heard_s)
            quiet_s = now_s - longest.heard_s
            kind, more = effector.partition(".")[0], len(tries) - 1
            logger.warning(
                "%s %s, call %s: it has said nothing for %.0f s%s",
                kind,
                name,
                longest.call,
                quiet_s,
                f", {more} more of {kind} {name} for over {QUIET_S:g} s" if more else "",
            )
            self._next_s[effector, name] = now_s + min(quiet_s, SAID_S)

    @contextlib.contextmanager
    def trying(self, effector: str, name: str, call: str) -> Iterator[_Try]:
        """Know of a try while it is under way."""
        one = _Try(effector=effector, name=name, call=call, heard_s=self._clock())
        self._tries[one] = None
        try:
            yield one
        finally:
            del self._tries[one]

    def heard(self, one: _Try) -> None:
        """A try said something."""
        one.heard_s = self._clock()

    def _quiet_s(self, effector: str) -> float:
        """Return for how long the quietest try of an effector has said nothing."""
        now_s = self._clock()
        return max(
            [now_s - one.heard_s for one in [*self._tries] if one.effector == effector], default=0.0
        )

    def tried(
        self, effector: str, name: str, ended: str, seconds: float, usage: Usage | None
    ) -> None:
        """Count a try that ended: how, after how long, and what it used."""
        self._calls.labels(effector, name, ended).observe(seconds)
        if usage is not None:
            self._tokens.labels(name, "read").inc(usage.input_tokens)
            self._tokens.labels(name, "written").inc(usage.output_tokens)
            self._usd.labels(name).inc(usage.usd_nano / _NANO)


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class _Try:
    """A try under way, and when it last said something."""

    effector: str
    name: str
    call: str
    heard_s: float


class _Counted:
    """An effector whose tries are counted.

    Args:
        effector: What tries.
        meter: Told of each try.
    """

    def __init__(self, effector: Effector, meter: Meter) -> None:
        self._effector = effector
        self._meter = meter
        self.name = effector.name

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed | InDoubt:
        """Do it, and count it."""
        with self._meter.trying(self.name, ask.name, call.id) as one:
            return await self._perform(call, ask, self._listened(one, attempt))

    def _listened(self, one: _Try, attempt: Attempt) -> Attempt:
        """Return an attempt whose words the meter hears too."""

        def heartbeat(state: object) -> None:
            self._meter.heard(one)
            attempt.heartbeat(state)

        async def progress(text: str) -> None:
            self._meter.heard(one)
            await attempt.progress(text)

        return dataclasses.replace(attempt, heartbeat=heartbeat, progress=progress)

    async def _perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed | InDoubt:
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
            self._meter.tried(self.name, name, ended, time.monotonic() - began_s, usage)


class _CountedVerifier(_Counted):
    """One that can find out whether a call happened."""

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> Done | InDoubt | None:
        """Say what a call led to; that is no try."""
        assert isinstance(self._effector, Verifier), "counted as one"
        return await self._effector.verify(call, ask, attempt)
