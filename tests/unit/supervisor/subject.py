"""A supervised program: `python -m tests.unit.supervisor.subject STORY DIRECTORY`, one JSON a line."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import pathlib
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from headwater.children import Part
from headwater.contracts.records import Partition
from headwater.errors import SettingsError
from headwater.runtime.posts import Kind
from headwater.supervisor import Plan, Supervisor
from headwater.watching import Limits

PLACE = Partition("hw.req.tool.cards.v1", 2)
STARTS = pathlib.Path(sys.argv[2], "starts")


def start(part: Part) -> int:
    """Say that a child is there; return how many were before it."""
    number = len(STARTS.read_text().splitlines()) if STARTS.exists() else 0
    with STARTS.open("a") as file:
        file.write(f"{os.getpid()}\n")
    accused = [[one.post.what, one.post.place, one.alone, one.cause] for one in part.accused]
    say(child=os.getpid(), number=number, accused=accused)
    return number


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _told() -> list[int]:
    """Return where a stop is noted: not an event, whose lock its own waiter may hold."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    return told


def finish(part: Part, status: int = 0) -> int:
    part.posts.end(status)
    return status


def segfault(part: Part, posts: int = 1) -> int:
    again = start(part)
    part.posts.join()
    if again:
        return finish(part, 7)
    for number in range(posts):
        part.posts.take(Kind.CALL, PLACE, 41 + number, f"run/{number}")
    return int(ctypes.string_at(0)[0])


def segfault_two(part: Part) -> int:
    return segfault(part, 2)


def exits(part: Part) -> int:
    if start(part):
        return finish(part)
    part.posts.join()
    part.posts.take(Kind.CALL, PLACE, 41, "run/1")
    os._exit(3)


def overflow(part: Part) -> int:
    if start(part):
        return finish(part)
    part.posts.join()
    part.posts.take(Kind.CALL, PLACE, 41, "run")

    class Deep:
        def __repr__(self) -> str:
            return repr(self.inner)

        inner: Any = None

    sys.setrecursionlimit(10**9)
    deep = Deep()
    deep.inner = deep
    return len(repr(deep))


def killed_idle(part: Part) -> int:
    if start(part):
        return finish(part)
    part.posts.join()
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


def never_joins(part: Part) -> int:
    start(part)
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


def refuses(part: Part) -> int:
    start(part)
    return 5


def endless_turn(part: Part) -> int:
    if start(part):
        return finish(part)
    part.posts.join()
    with part.posts.at(Kind.TURN, PLACE, 41, "run"):
        while True:
            pass


def still(part: Part) -> int:
    """Beats once, and never again; at its post before that, as it is ended for the beat."""
    if start(part):
        return finish(part)
    part.posts.join()
    with part.posts.at(Kind.CALL, PLACE, 41, "run/1"):
        part.posts.beat()
        threading.Event().wait()
    return 1


def greedy(part: Part) -> int:
    if start(part):
        return finish(part)
    part.posts.join()
    part.posts.take(Kind.CALL, PLACE, 41, "run/1")
    held = []
    while True:
        held.append(bytearray(os.urandom(1_000_000)))
        time.sleep(0.001)


def left_behind(part: Part) -> int:
    """A thread goes on after its call was answered; the process hears of it, and ends."""
    if start(part):
        return finish(part, 9)
    told = _told()
    part.posts.join()
    post = part.posts.take(Kind.CALL, PLACE, 41, "run/1")
    part.posts.hold(post, part.posts.serial(post))
    part.posts.leave(post)
    while not told:
        time.sleep(0.05)
    return finish(part)


def waits(part: Part) -> int:
    """Ends with 4 when it is told to."""
    told = _told()
    part.posts.join()
    part.posts.take(Kind.CALL, PLACE, 41, "run/1")
    start(part)
    while not told:
        time.sleep(0.05)
    return finish(part, 4)


def starts_slowly(part: Part) -> int:
    """Catches no signals yet."""
    start(part)
    time.sleep(600)
    return finish(part, 4)


def ends_slowly(part: Part) -> int:
    """Ends with 4 when it is told to, and takes a while in which nothing catches signals any more."""
    told = _told()
    part.posts.join()
    start(part)
    while not told:
        time.sleep(0.05)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(ending=True)
    time.sleep(1.0)
    return finish(part, 4)


def deaf(part: Part) -> int:
    """Does not end when it is told to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    part.posts.join()
    start(part)
    threading.Event().wait()
    return 1


def with_cells(part: Part) -> int:
    """Asks for a cell that dies and for one that answers."""
    if part.work is not None:
        part.work.setblocking(True)  # whoever asked may send its word later
        told = part.work.recv(100)
        if told == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        part.work.send(b"told " + told)
        return finish(part)  # in good order: its death would be said behind its word
    start(part)
    part.posts.join()
    for word in (b"die", b"hello"):
        line: socket.socket = part.cell()
        line.send(word)
        heard = line.recv(4_096)
        gone = pickle.loads(heard[4:]) if b"Gone" in heard else None  # noqa: S301 - the supervisor's
        say(cell=heard.decode() if gone is None else gone.cause)
        line.close()
    return finish(part)


STORIES: dict[str, Callable[[Part], int]] = {
    story.__name__: story
    for story in (
        segfault, segfault_two, exits, overflow, killed_idle, never_joins, refuses, endless_turn,
        still, greedy, left_behind, waits, starts_slowly, ends_slowly, deaf, with_cells,
    )
}  # fmt: skip


def main(story: str, directory: pathlib.Path, *, file: bool) -> int:
    logging.basicConfig(level=logging.INFO)
    plan = Plan(
        name="tools-1",
        posts=8,
        limits=Limits(turn_s=0.5, stall_s=0.5, stuck_s=0.5, memory_bytes=400 * 1024**2),
        drain_s=-9.0 if story == deaf.__name__ else 20.0,  # ten more, and it is ended
        path=directory / "posts" if file else None,
        starts_max=3,
        backoff_s_max=0.1,
    )
    try:
        part = Supervisor(plan).run()
    except SettingsError as error:
        say(error=str(error))
        return 1
    if isinstance(part, int):
        say(ended=part)
        return part
    return STORIES[story](part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2]), file="--file" in sys.argv))
