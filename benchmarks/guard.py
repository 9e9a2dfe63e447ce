"""What it costs a turn that a supervisor can see it: a post taken and left, and nobody suspected.

`guard median ratio R`: nanoseconds of that, over those of hashing 4 KiB once on the same machine. A turn
with all its duties takes a hundred microseconds and more (`hop`).
"""

from __future__ import annotations

import hashlib
import timeit
from typing import Any

from headwater.contracts.records import Partition, Record
from headwater.runtime.aside import Aside
from headwater.runtime.posts import Posts
from headwater.runtime.trying import Trying

_TURNS = 20_000
_REPETITIONS = 7
_RUN = b"triage.3.0af7651916cd43dd8448eb211c80319c"


class Nobody:
    """Suspects nobody, as almost every process does."""

    def find(self, record: Record) -> None:
        """Return what is held against a record."""

    check = find


class Guard:
    """A guard without an event loop, since nobody is tried."""

    def __init__(self) -> None:
        self.posts = Posts(64)
        self.suspects = Nobody()


def main() -> None:
    """Measure both."""
    guard: Any = Guard()
    trying = Trying(guard, "triage", lambda *_: [])
    place = Partition("hw.inbox.triage.v1", 3)
    record = Record(partition=place, offset=12_345, time_ms=0, key=_RUN, value=b"", headers=())
    aside = Aside(trying, 12_345)

    def turn() -> None:
        """Take no turn."""

    def guarded() -> None:
        if aside.passes(record):
            raise AssertionError("nobody is suspected")
        trying.check(record)
        trying.enter(record)
        try:
            turn()
        finally:
            trying.leave()

    def ns(function: Any) -> float:
        """Return nanoseconds a call, the least of some: whatever else runs here only adds."""
        return min(timeit.repeat(function, number=_TURNS, repeat=_REPETITIONS)) / _TURNS * 1e9

    hashing = b"x" * 4_096
    plain_ns, guarded_ns = ns(lambda: hashlib.blake2b(hashing).digest()), ns(guarded)
    looks_us = timeit.timeit(guard.posts.used, number=1_000) * 1_000
    print(f"guard median ratio {guarded_ns / plain_ns:.2f}")
    print(
        f"  hash {plain_ns:.0f} ns, guard {guarded_ns:.0f} ns; the supervisor looks in {looks_us:.0f} us"
    )


if __name__ == "__main__":
    main()
