"""A seeded scheduler: who moves next, and what breaks; then a calm in which everything must settle.

Everything runs on one thread, so a seed and a program give one history. Loops interleave inside
their calls of the log too: at such a point a loop may die, or freeze while the others go on.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError
from headwater.log.local import LocalLog
from headwater.log.local_faults import Crash, Ending, Faults, Point
from headwater.log.local_member import LocalMember

ROUNDS_MAX = 4_000
"""Rounds of the calm before a world that does not settle counts as stuck."""
QUIET_ROUNDS = 3
"""Rounds in which nothing happened before the calm counts as settled."""
DEPTH_MAX = 3
"""How many loops may be frozen inside each other's calls."""


POINTS = {
    Point.POLL: 0.01,
    Point.POLLED: 0.02,
    Point.COMMIT: 0.2,
    Point.WRITTEN: 0.08,
    Point.SENT: 0.08,
    Point.COMMITTED: 0.15,
    Point.APPEND: 0.04,
    Point.APPENDED: 0.04,
    Point.MARK: 0.04,
    Point.READ: 0.03,
    Point.OFFSET: 0.03,
}
"""How often something goes wrong at each point; most where there is work to lose."""


class Clock:
    """Time that moves only when told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Return now, in milliseconds."""
        return self.now_ms


class Loop(Protocol):
    """A process's loop, as far as a scheduler must know it."""

    def step(self, wait_ms: int = 0) -> int:
        """Do one round; return how much was done."""
        ...

    def close(self) -> None:
        """Let go of what it holds; called when it is dead."""
        ...

    def backlog(self) -> int:
        """Return how much it has in hand that waits for time to pass."""
        ...

    def next_ms(self) -> int | None:
        """Return when it next has something to do by itself."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """A process that can be started again and again under one name.

    Args:
        who: `group/instance`.
        start: Builds its loop and membership; given its own clock, which may be off.
        freezes: Whether others may move while it is inside a call of the log.
    """

    who: str
    start: Callable[[Callable[[], int]], tuple[Loop, LocalMember]]
    freezes: bool = True


class World(Protocol):
    """What is simulated: processes over one log, their input, and what must come of it."""

    log: LocalLog
    specs: Sequence[Spec]
    feed: Sequence[Draft]
    """Appended in this order, at any time."""
    inboxes: Sequence[tuple[str, str]]
    """(group, topic) whose records must all be done with in the end."""
    compacted: Sequence[str]
    """Topics that may be compacted at any time."""

    def outcome(self) -> dict[str, Any]:
        """Return what a run came to, by aspect: equal whatever went wrong on the way."""
        ...

    def ready(self, draft: Draft) -> bool:
        """Whether this may be fed yet: who says it may have to have seen something before."""
        ...

    def may_repeat(self, draft: Draft) -> bool:
        """Whether an append of this may land twice."""
        ...


@dataclasses.dataclass(slots=True)
class Alive:
    """A running process; a ghost is one whose name another has taken."""

    spec: Spec
    loop: Loop
    member: LocalMember


class Broken(BaseException):
    """A loop raised what no fault should make it raise; the loops frozen around it must not catch it.

    Args:
        who: Which loop.
        error: What it raised.
    """

    def __init__(self, who: str, error: Exception) -> None:
        super().__init__(f"{who} raised {type(error).__name__}: {error}")


class Stuck(Exception):  # noqa: N818 - what became of the world
    """The calm did not settle, or left records undone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How often what goes wrong, per occasion.

    Args:
        faults_max: Most faults of one run; half of it is the fewest.
        unknown: A transaction's end is never heard of.
        unknown_max: Most such ends of one run.
        late: A transaction becomes visible late.
        twice: An append lands twice.
        away: Something that a decider needs is away.
        between: Between two steps.
        steps_max: Steps before the calm.
    """

    faults_max: int = 60
    unknown: float = 0.2
    unknown_max: int = 16
    late: float = 0.1
    twice: float = 0.2
    away: float = 0.02
    between: float = 0.06
    steps_max: int = 400


class Storm(Faults):
    """Moves a world's processes in seeded order and breaks things, then calms down.

    Args:
        seed: Chooses everything.
        clock: The log's time.
        odds: How often what goes wrong; `None` for a run without faults.
    """

    def __init__(self, seed: int, clock: Clock, odds: Odds | None) -> None:
        self._random = random.Random(f"storm/{seed}")  # noqa: S311 - a seeded world
        self.clock = clock
        self._odds = odds or Odds(faults_max=0, steps_max=0)
        most = self._odds.faults_max
        self._left = self._random.randint(most // 2, most) if most else 0
        self._unknown = self._odds.unknown_max if most else 0
        self._calm = not most
        self._world: World | None = None
        self._running: list[Alive] = []
        self._alive: dict[str, Alive] = {}
        self._ghosts: list[Alive] = []
        self._fed = 0
        self._steps = 0
        self.history: list[str] = []
        """What went wrong, in order."""

    def at(self, point: Point, who: str) -> None:
        """Perhaps kill the caller here, or freeze it while others move."""
        if not self._running:
            return
        caller = self._running[-1]
        if point is Point.BLOCKED:
            self._note(f"{caller.spec.who} waits for a transaction that cannot end: killed")
            raise Crash
        if self._calm or len(self._running) > DEPTH_MAX or not self._strikes(POINTS[point]):
            return
        roll = self._random.random()
        if roll < 0.25 or not caller.spec.freezes:  # noqa: PLR2004 - a quarter die
            self._note(f"{caller.spec.who} dies at {point}")
            raise Crash
        if roll < 0.8:  # noqa: PLR2004 - half are struck off while frozen
            self._note(f"{caller.spec.who} freezes at {point} and is struck off")
            self._log.evict(caller.member)
        else:
            self._note(f"{caller.spec.who} freezes at {point}")
        for _ in range(self._random.randint(4, 16)):
            self._move_someone(beside=caller)

    def ending(self, who: str) -> Ending:
        """Perhaps keep a transaction's end from its owner."""
        if self._calm or not self._unknown or self._random.random() >= self._odds.unknown:
            return Ending.KNOWN
        self._unknown -= 1
        ending = self._random.choice([Ending.LANDED_UNKNOWN, Ending.ABORTED_UNKNOWN])
        self._note(f"{who}: a commit {ending.value}")
        return ending

    def late(self, who: str) -> int:
        """Perhaps make a transaction visible only later."""
        if self._calm or self._random.random() >= self._odds.late:
            return 0
        return self._random.randint(1, 8)

    def copies(self, draft: Draft) -> int:
        """Perhaps let an append land twice."""
        if self._calm or self._random.random() >= self._odds.twice:
            return 1
        assert self._world is not None
        return 2 if self._world.may_repeat(draft) else 1

    def away(self) -> bool:
        """Return whether something that deciders need is away just now."""
        return not self._calm and self._random.random() < self._odds.away

    def run(self, world: World) -> dict[str, Any]:
        """Run a world to its end; return what it came to.

        Raises:
            Stuck: It did not settle, or left records undone.
            Broken: A loop raised something.
        """
        self._world = world
        try:
            for spec in world.specs:
                self._start(spec)
            for _ in range(self._odds.steps_max):
                if not self._left and self._fed == len(world.feed):
                    break
                self._act()
            self._calm = True
            self._settle()
            return world.outcome()
        finally:
            for process in (*self._alive.values(), *self._ghosts):
                process.loop.close()

    @property
    def _log(self) -> LocalLog:
        assert self._world is not None
        return self._world.log

    def _strikes(self, odds: float) -> bool:
        if self._left and self._random.random() < odds:
            self._left -= 1
            return True
        return False

    def _note(self, what: str) -> None:
        self.history.append(f"step {self._steps}: {what}")

    def _act(self) -> None:
        """Do one thing between two steps of the loops: feed, move, revive, break."""
        assert self._world is not None
        self._steps += 1
        self.clock.now_ms += self._random.randint(0, 4)
        if self._strikes(self._odds.between):
            self._disturb()
        roll = self._random.random()
        if roll < 0.4 and self._feed():  # noqa: PLR2004 - two in five feed
            return
        if 0.4 <= roll < 0.45:  # noqa: PLR2004 - one in twenty waits, so timers come due
            self.clock.now_ms += self._random.randint(1, 60)
        else:
            self._move_someone()

    def _disturb(self) -> None:
        assert self._world is not None
        kind = self._random.randrange(4)
        alive = [*self._alive.values()]
        if kind == 0 and alive:
            frozen = self._random.choice(alive)
            self._note(f"another process takes the name of {frozen.spec.who}")
            self._ghosts.append(frozen)
            self._start(frozen.spec)
        elif kind == 1 and alive:
            struck = self._random.choice(alive)
            self._note(f"{struck.spec.who} is struck off")
            self._log.evict(struck.member)
        elif kind == 2 and self._world.compacted:  # noqa: PLR2004 - one of four
            topic = self._random.choice(self._world.compacted)
            self._note(f"{topic} is compacted")
            self._log.compact(topic, tombstone_ms=200)
        elif alive:
            dying = self._random.choice(alive)
            self._note(f"{dying.spec.who} dies between two steps")
            self._die(dying)

    def _feed(self) -> bool:
        """Append the next input, if its time has come."""
        assert self._world is not None
        if self._fed == len(self._world.feed):
            return False
        draft = self._world.feed[self._fed]
        if not self._world.ready(draft):
            return False
        self._fed += 1
        coroutine = self._log.append(draft)
        try:
            coroutine.send(None)
        except StopIteration:
            return True
        raise AssertionError("the local log's append never waits")

    def _start(self, spec: Spec) -> None:
        skew = 0 if self._calm and not self.history else self._random.randint(-20, 20)
        clock = self.clock
        loop, member = spec.start(lambda: clock.now_ms + skew)
        self._alive[spec.who] = Alive(spec, loop, member)

    def _dead(self) -> list[Spec]:
        assert self._world is not None
        return [spec for spec in self._world.specs if spec.who not in self._alive]

    def _die(self, process: Alive) -> None:
        process.loop.close()
        if process in self._ghosts:
            self._ghosts.remove(process)
            return
        del self._alive[process.spec.who]
        if self._random.random() < 0.5:  # noqa: PLR2004 - half of them stay away for a session
            self._log.evict(process.member)

    def _move_someone(self, beside: Alive | None = None) -> None:
        """Step one process that is not frozen; beside a frozen one, its rivals more often than not."""
        dead = self._dead()
        if dead and self._random.random() < 0.3:  # noqa: PLR2004 - the dead come back soon
            self._start(self._random.choice(dead))
            return
        able = [
            process
            for process in (*self._alive.values(), *self._ghosts)
            if process not in self._running
        ]
        if beside is not None and self._random.random() < 0.6:  # noqa: PLR2004 - as it says
            group = beside.spec.who.partition("/")[0]
            able = [one for one in able if one.spec.who.startswith(group + "/")] or able
        if able:
            self._move(self._random.choice(able))

    def _move(self, process: Alive) -> int:
        """Step a process; one that dies is dead for its successor to replace."""
        self._running.append(process)
        try:
            return process.loop.step()
        except Crash:
            self._die(process)
        except Exception as error:
            if not isinstance(error, SettingsError) or process not in self._ghosts:
                raise Broken(process.spec.who, error) from error
            self._note(f"a ghost of {process.spec.who} ends: {error}")
            self._die(process)
        finally:
            assert self._running.pop() is process
        return 1

    def _settle(self) -> None:
        """Let everyone finish, without faults."""
        assert self._world is not None
        quiet = 0
        for _ in range(ROUNDS_MAX):
            done = 0
            for spec in self._dead():
                self._start(spec)
                done += 1
            done += self._feed()
            for process in (*self._ghosts, *self._alive.values()):
                done += self._move(process)
            self.clock.now_ms += 1
            quiet = 0 if done else quiet + 1
            if quiet < QUIET_ROUNDS or any(p.loop.backlog() for p in self._alive.values()):
                continue
            due = [when for p in self._alive.values() if (when := p.loop.next_ms()) is not None]
            if not due:
                self._check_done()
                return
            quiet = 0
            self.clock.now_ms = max(self.clock.now_ms + 1, min(due) + 25)
        raise Stuck(f"not settled after {ROUNDS_MAX} rounds")

    def _check_done(self) -> None:
        assert self._world is not None
        for group, topic in self._world.inboxes:
            for number in range(self._log.partitions(topic)):
                place = Partition(topic, number)
                offset = self._log.offset(group, place)
                reader = self._log.read({place: offset or 0})
                if left := reader.poll(records_max=10, wait_ms=0):
                    raise Stuck(f"{group} stopped at {offset} of {place}, {len(left)} records left")
