"""The storm: who moves next, and what breaks; then a calm in which everything must come to rest.

Everything runs on one thread, so a seed and a program give one history. Processes interleave inside
their calls of the log and of the world outside: there one may die, or stand still while others go on.
Whoever moves next is drawn apart from what breaks, and what breaks is kept, so that a history can be
played again with less of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from headwater.contracts.records import Draft
from headwater.errors import SettingsError, TransientError
from headwater.log.local import LocalLog
from headwater.log.local_faults import Crash, Ending, Faults, Point
from headwater.testing.simulator.choices import Choice, Choices
from headwater.testing.simulator.crowd import SKEW_MS, Crowd
from headwater.testing.simulator.odds import BETWEEN, ENDINGS, WAYS, Odds
from headwater.testing.simulator.processes import Alive, Broken, Clock, Stuck, World
from headwater.testing.simulator.virtual import inside

ROUNDS_MAX = 3_000
"""Rounds of the calm before a world that does not come to rest counts as stuck."""
QUIET_ROUNDS = 3
"""Rounds in which nothing happened before the calm counts as quiet."""
DEPTH_MAX = 3
"""How many processes may stand still inside each other's calls."""
PATIENCE_MS = 1_000
"""People speak up when nothing else happens for so long."""
LOOKS_MS = 2_100
"""Whoever looks again at what waits for another version does so within this."""


class Storm(Faults):
    """Moves a world's processes in seeded order and breaks things, then calms down.

    Args:
        seed: Chooses who moves.
        clock: The log's time.
        choices: What goes wrong.
        odds: How often.
        calm_at: Step at which the calm begins; `None` for as soon as everything was fed and has gone wrong.
    """

    def __init__(
        self,
        seed: int,
        clock: Clock,
        choices: Choices,
        odds: Odds,
        *,
        calm_at: int | None = None,
    ) -> None:
        self.clock = clock
        self.choices = choices
        self.calm_at = calm_at
        """When the calm began, once it has."""
        self.history: list[str] = []
        """What went wrong, in order."""
        self.counts: Counter[str] = Counter()
        """What went wrong, and where, how often."""
        self.crowd = Crowd(seed, clock, self.counts)
        """Who is alive."""
        self._odds = odds
        self._random = random.Random(f"schedule/{seed}")  # noqa: S311 - a seeded world
        self._calm = False
        self._world: World | None = None
        self._fed = 0
        self._steps = 0

    @property
    def log(self) -> LocalLog:
        """The world's log."""
        assert self._world is not None
        return self._world.log

    # What the log and the world outside ask

    def at(self, point: Point, who: str) -> None:
        """Perhaps kill the caller here, or have it stand still while others go on."""
        if not self.crowd.running:
            return
        caller = self.crowd.running[-1]
        if caller.dead:
            raise Crash
        if point is Point.BLOCKED:
            self._note(f"{caller.spec.who} waits for a transaction that cannot end: killed")
            self.crowd.kill(caller)
        if point is Point.PAUSE and caller.spec.calls and not caller.leaving:
            self.counts["a queue is full"] += 1
        if self._calm:
            return
        if point is Point.APPEND or point is Point.APPENDED:
            choice = self.choices.at(
                f"away {point} of {caller.spec.who}", self._odds.away, ["away"]
            )
            if choice is not None:
                self._tell(choice)
                raise TransientError("the log is away")
        self.reach(point, self._odds.points[point])

    def reach(self, point: str, odds: float | None = None) -> None:
        """Come to a point where a process may die or stand still."""
        if not self.crowd.running:
            return
        caller = self.crowd.running[-1]
        if caller.dead:
            raise Crash
        if self._calm or len(self.crowd.running) > DEPTH_MAX:
            return
        choice = self.choices.at(
            f"{point} of {caller.spec.who}", self._odds.calls if odds is None else odds, WAYS
        )
        if choice is None:
            return
        self._tell(choice)
        self.counts[f"something at {point}"] += 1
        if choice.what == "death":
            self.crowd.kill(caller)
        if choice.what != "standstill":
            self.crowd.strike_off(caller)
        self._stand_still(caller, choice)

    def missed(self, site: str) -> None:
        """Come to a point where something that a decider needs may be away.

        Raises:
            TransientError: It is.
        """
        if self._calm:
            return
        choice = self.choices.at(site, self._odds.missed, ["something away"])
        if choice is not None:
            self._tell(choice)
            raise TransientError("something is away")

    def under_way(self, name: str) -> None:
        """A slow call goes on: perhaps its process is told to end meanwhile."""
        if self._calm:
            return
        caller = self.crowd.running[-1]
        site = f"slow {name} of {caller.spec.who}"
        choice = self.choices.at(site, self._odds.stops, ["a stop in good order"])
        if choice is not None:
            self._tell(choice)
            self.crowd.leave(caller, choice.dice)

    def stills(self, *, now: bool) -> int:
        """Return how often the process that moves has stood still: by now, or when it began to move."""
        caller = self.crowd.running[-1]
        return caller.stills if now else caller.stills_before

    def ending(self, who: str) -> Ending:
        """Perhaps keep a transaction's end from its owner."""
        if self._calm:
            return Ending.KNOWN
        choice = self.choices.at(f"end of {who}", self._odds.ending, [*ENDINGS])
        if choice is None:
            return Ending.KNOWN
        self._tell(choice)
        self.crowd.cut(who)
        return ENDINGS[choice.what]

    def late(self, who: str) -> int:
        """Perhaps make a transaction visible only later."""
        if self._calm:
            return 0
        choice = self.choices.at(f"visibility of {who}", self._odds.late, ["delay"])
        if choice is None:
            return 0
        self._tell(choice)
        return 1 + choice.dice % 8

    def copies(self, draft: Draft) -> int:
        """Perhaps let an append land twice."""
        if self._calm:
            return 1
        choice = self.choices.at(f"copy in {draft.topic}", self._odds.twice, ["second copy"])
        if choice is None:
            return 1
        self._tell(choice)
        return 2

    # The scheduler

    def run(self, world: World) -> None:
        """Run a world until everything is at rest.

        Raises:
            Stuck: It does not come to rest.
            Broken: A process raised something.
        """
        self._world = world
        self.crowd.live_in(world)
        while not self._over():
            self._act()
            world.look()
        self.calm_at = self._steps
        self._calm = True
        for again, speak in world.stages():
            for who in again:
                if (process := self.crowd.alive.get(who)) is not None:
                    self.crowd.leave(process, 0)
            self._settle(speak=speak)

    def _over(self) -> bool:
        assert self._world is not None
        if self.calm_at is not None:
            return self._steps >= self.calm_at
        fed = self._fed == len(self._world.feed)
        return self._steps >= self._odds.steps_max or (fed and not self.choices.left)

    def _act(self) -> None:
        """Do one thing between two steps of the loops: feed, move, revive, break."""
        assert self._world is not None
        self._steps += 1
        self.clock.now_ms += self._random.randint(0, 4)
        choice = self.choices.at("step", self._odds.between, BETWEEN)
        if choice is not None:
            self._disturb(choice)
        roll = self._random.random()
        if roll < 0.25 and self._feed():  # noqa: PLR2004 - one in four feeds
            return
        if roll > 0.95 and (said := self._world.chatter(self._random)):  # noqa: PLR2004 - one in twenty
            self._append(said)
        elif 0.25 <= roll < 0.3:  # noqa: PLR2004 - one in twenty waits, so timers come due
            self.clock.now_ms += self._random.randint(1, 60)
        else:
            self._move_someone(self._random)

    def _disturb(self, choice: Choice) -> None:
        assert self._world is not None
        dice = random.Random(choice.dice)  # noqa: S311 - a seeded world
        alive = [*self.crowd.alive.values()]
        if choice.what == "compaction":
            topic = dice.choice([*self._world.compacted])
            self._tell(choice, topic)
            self._world.before_compaction()
            self.log.compact(topic, tombstone_ms=200)
            return
        if choice.what == "standstill of everyone":
            self._tell(choice)
            self.clock.now_ms += dice.randint(1, 2 * self._world.lease_ms)
            return
        if not alive:
            return
        process = dice.choice(alive)
        self._tell(choice, process.spec.who)
        if choice.what == "a stop in good order":
            self.crowd.leave(process, dice.getrandbits(16))
            return
        if choice.what == "another version":
            self._roll(dice, alive)
            return
        self.crowd.cut(process.spec.who)
        if choice.what == "a second of the name":
            self.crowd.ghosts.append(process)
            self.crowd.start(process.spec)
        elif choice.what == "being struck off":
            self.crowd.strike_off(process)
        else:
            self.crowd.die(process, gone=bool(dice.getrandbits(1)))

    def _stand_still(self, caller: Alive, choice: Choice) -> None:
        assert self._world is not None
        dice = random.Random(choice.dice)  # noqa: S311 - a seeded world
        caller.stills += 1
        if choice.what == "long standstill, struck off":
            self.clock.now_ms += dice.randint(1, self._world.lease_ms * 2)
        with inside(None):
            for _ in range(dice.randint(4, 16)):
                self.clock.now_ms += dice.randint(0, 4)
                self._move_someone(dice, beside=caller)

    def _feed(self) -> bool:
        """Append the next input."""
        assert self._world is not None
        if self._fed == len(self._world.feed):
            return False
        self._append(self._world.feed[self._fed][1])
        self._fed += 1
        return True

    def _append(self, draft: Draft) -> None:
        coroutine = self.log.append(draft)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("the local log's append never waits")

    def _roll(self, dice: random.Random, alive: Sequence[Alive]) -> None:
        assert self._world is not None
        process = dice.choice([one for one in alive if one.spec.versioned] or alive)
        words, again = self._world.roll(process.spec, dice)
        self._note(f"  {words}")
        for one in alive:
            if one.spec.who in again:
                self.crowd.leave(one, dice.getrandbits(16))

    def _move_someone(self, dice: random.Random, beside: Alive | None = None) -> None:
        """Step one process that can; beside one that stands still, its rivals more often than not."""
        dead = self.crowd.dead()
        if dead and dice.random() < 0.3:  # noqa: PLR2004 - the dead come back soon
            self.crowd.start(dice.choice(dead))
            return
        able = [process for process in self.crowd.processes if process not in self.crowd.running]
        if beside is not None and dice.random() < 0.6:  # noqa: PLR2004 - as it says
            group = beside.spec.who.partition("/")[0] + "/"
            able = [one for one in able if one.spec.who.startswith(group)] or able
        if able:
            self._move(dice.choice(able))

    def _move(self, process: Alive) -> int:
        """Step a process; one that dies is dead for its successor to replace."""
        assert self._world is not None
        now_ms = self.clock.now_ms
        process.stills += now_ms - process.stepped_ms > self._world.lease_ms // 2
        process.stills_before = process.stills
        if process.struck:
            process.struck = False
            self.crowd.cut(process.spec.who)  # it joins again, and takes partitions from others
        process.stepped_ms = now_ms
        self.crowd.running.append(process)
        try:
            done: int = process.loop.step()
        except Crash:
            process.dead = True
        except Exception as error:
            if process.dead:
                pass  # whatever its last words are
            elif isinstance(error, SettingsError) and process in self.crowd.ghosts:
                self._note(f"a ghost of {process.spec.who} ends: {error}")
                process.dead = True
            else:
                raise Broken(process.spec.who, error) from error
        else:
            if process.left:
                self.crowd.left(process)
                return done + 1
            if not process.dead:
                process.stepped_ms = self.clock.now_ms
                return done
        finally:
            assert self.crowd.running.pop() is process
        self.crowd.die(process, gone=self._random.random() < 0.5)  # noqa: PLR2004 - half stay away
        return 1

    # The calm

    def _settle(self, *, speak: bool) -> None:
        """Let everyone finish without faults, and people do what is theirs, until nothing is due."""
        assert self._world is not None
        quiet = 0
        for _ in range(ROUNDS_MAX):
            done = self._round()
            quiet = 0 if done else quiet + 1
            if not quiet or any(one.loop.backlog() for one in self.crowd.alive.values()):
                continue
            dues = [
                due for one in self.crowd.alive.values() if (due := one.loop.next_ms()) is not None
            ]
            due = min(dues, default=None)
            if due is not None and due - self.clock.now_ms <= PATIENCE_MS:
                # In small steps, so that nobody seems to have stood still.
                step = min(due + SKEW_MS + 5 - self.clock.now_ms, self._world.lease_ms // 4)
                self.clock.now_ms += max(1, step)
                quiet = 0
            elif quiet < QUIET_ROUNDS:
                continue
            elif speak and (said := self._world.people()):
                for draft in said:
                    self._append(draft)
                quiet = 0
            elif due is not None and due - self.clock.now_ms <= LOOKS_MS:
                self.clock.now_ms += self._world.lease_ms // 4
            else:
                return  # what is due so much later are ends of time, which would hide what is lost
        raise Stuck(f"not at rest after {ROUNDS_MAX} rounds")

    def _round(self) -> int:
        done = 0
        for spec in self.crowd.dead():
            self.crowd.start(spec)
            done += 1
        while self._feed():
            done += 1
        for process in (*self.crowd.ghosts, *self.crowd.alive.values()):
            done += self._move(process)
        self.clock.now_ms += 1
        return done

    def _tell(self, choice: Choice, more: str = "") -> None:
        self.counts[choice.what] += 1
        self._note(f"{choice}{': ' + more if more else ''}")

    def _note(self, what: str) -> None:
        depth = "  " * len(self.crowd.running)
        self.history.append(f"step {self._steps:3}: {depth}{what}")
