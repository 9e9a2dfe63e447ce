"""What can go wrong with the local log, asked at each call of the port; by default nothing does."""

from __future__ import annotations

from enum import Enum, StrEnum

from headwater.contracts.records import Draft


class Crash(BaseException):
    """The process that made this call is dead; whatever it held in memory is gone.

    Not an `Exception`, so that no handler of the program under test survives its own death.
    """


class Point(StrEnum):
    """Where in a call something may happen: no lock is held, so other members may move meanwhile."""

    POLL = "poll"
    POLLED = "polled"
    COMMIT = "commit"
    WRITTEN = "written"
    SENT = "sent"
    COMMITTED = "committed"
    APPEND = "append"
    APPENDED = "appended"
    MARK = "mark"
    MARKED = "marked"
    READ = "read"
    FETCHED = "fetched"
    OFFSET = "offset"
    FOUND = "found"
    PAUSE = "pause"
    RESUME = "resume"
    BLOCKED = "blocked"


class Ending(Enum):
    """How the end of a transaction looks to its owner."""

    KNOWN = "known"
    LANDED_UNKNOWN = "landed, but the owner never hears of it"
    ABORTED_UNKNOWN = "aborted, and the owner never hears of it"


class Faults:
    """Nothing goes wrong; a simulator overrides what it wants to break."""

    def at(self, point: Point, who: str) -> None:
        """Called at each point of each call.

        Args:
            point: Where.
            who: `group/instance` of the member that calls; empty outside memberships.

        Raises:
            Crash: The caller dies here.
            TransientError: The log is away (appends only).
        """

    def ending(self, who: str) -> Ending:
        """Return how this transaction's end looks to its owner."""
        return Ending.KNOWN

    def late(self, who: str) -> int:
        """Return after how many further calls of the log a committed transaction becomes visible."""
        return 0

    def copies(self, draft: Draft) -> int:
        """Return how often an append lands: 2 for a retry whose first try had landed."""
        return 1
