"""Processes: what a scheduler knows of them and of the world that they live in."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from headwater.contracts.records import Draft
from headwater.log.local import LocalLog
from headwater.log.local_member import LocalMember


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


@dataclasses.dataclass(slots=True, eq=False)
class Alive:
    """A running process; a ghost is one whose name another has taken.

    Args:
        spec: What it is.
        clock: Its own time.
        loop: Its loop.
        member: Its membership.
        dead: Whether it died in the middle of something.
        struck: Whether its group has forgotten it, and it does not know.
        stills: How often it stood still for so long that others may have taken over.
        stills_before: How often it had when its step began.
        stepped_ms: When its last step began.
        leaving: Whether it was told to end in good order.
        left: Whether it has.
        hasty: Whether it gives calls under way no time, so that they may be made again.
        handed: Whether others had its partitions while it still made calls.
    """

    spec: Spec
    clock: Callable[[], int]
    loop: Any = None
    member: Any = None
    dead: bool = False
    struck: bool = False
    stills: int = 0
    stills_before: int = 0
    stepped_ms: int = 0
    leaving: bool = False
    left: bool = False
    hasty: bool = False
    handed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """A process that can be started again and again under one name.

    Args:
        who: `group/instance`.
        start: Builds its loop and membership.
        leave: Has it end in good order: (process, dice for how), which sets `left` if it is done at once.
        calls: Whether it calls the world outside.
        versioned: Whether its version makes a difference.
    """

    who: str
    start: Callable[[Alive], tuple[Loop, LocalMember]]
    leave: Callable[[Alive, int], None]
    calls: bool = False
    versioned: bool = False


class World(Protocol):
    """What is simulated: processes over one log, their input, and people who look after it."""

    log: LocalLog
    specs: Sequence[Spec]
    feed: Sequence[tuple[int, Draft]]
    """(number, record), appended in this order, at any time."""
    compacted: Sequence[str]
    """Topics that may be compacted at any time."""
    lease_ms: int
    """How long a call that was noted may go on unseen."""

    def look(self) -> None:
        """Take in what was written; called after each step of the storm."""
        ...

    def people(self) -> Sequence[Draft]:
        """Return what people say when nothing else happens."""
        ...

    def chatter(self, dice: random.Random) -> Draft | None:
        """Return what somebody says meanwhile, if anybody does."""
        ...

    def roll(self, spec: Spec, dice: random.Random) -> tuple[str, Collection[str]]:
        """Choose the version that a process starts with from now on; say so, and who has to start again."""
        ...

    def stages(self) -> Iterator[tuple[Collection[str], bool]]:
        """Yield how the world comes to its end: (who has to start again first, whether people speak)."""
        ...

    def before_compaction(self) -> None:
        """Read what compaction may take away."""
        ...


class Broken(BaseException):
    """A loop raised what no fault should make it raise; whoever stands still around it must not catch it.

    Args:
        who: Which process.
        error: What it raised.
    """

    def __init__(self, who: str, error: BaseException) -> None:
        super().__init__(f"{who} raised {type(error).__name__}: {error}")


class Stuck(Exception):  # noqa: N818 - what became of the world
    """The calm does not end."""
