"""Children: the processes that a supervisor forks, from within and as it sees them."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import signal
import socket
import time

from headwater.runtime.posts import Accusation, Post, Posts
from headwater.watching import Watch

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""Signals that a supervisor hears, and its children again by themselves."""
CELL = b"cell"
"""What a process sends to be given a cell."""
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(slots=True, kw_only=True)
class Part:
    """What a forked process is.

    Args:
        posts: Its posts.
        accused: What it has to write down before it joins.
        starts: How many were started so far, this one included.
        control: Where a process asks for cells.
        work: Where a cell gets its work; `None` for the process itself.
    """

    posts: Posts
    accused: tuple[Accusation, ...] = ()
    starts: int = 1
    control: socket.socket | None = None
    work: socket.socket | None = None

    def cell(self) -> socket.socket:
        """Have the supervisor fork a cell; return the line to it, which ends when the cell does."""
        assert self.control is not None, "cells ask for none"
        mine, its = socket.socketpair()
        with its:
            socket.send_fds(self.control, [CELL], [its.fileno()])
        return mine


@dataclasses.dataclass(slots=True, kw_only=True)
class Child:
    """What a supervisor knows of one."""

    pid: int
    posts: Posts
    watch: Watch
    began_s: float
    line: socket.socket | None = None
    """A copy of a cell's end of its line, to say there how it died."""
    killed: str = ""
    until_s: float | None = None
    """When it is ended at the latest, if it was told to stop or said that it ends."""
    ending: bool = False
    status: int | None = None

    @property
    def cell(self) -> bool:
        """Whether it is a cell."""
        return self.line is not None

    def at_work(self) -> list[Post]:
        """Return the posts that it left in the middle of their work."""
        return [post for post in self.posts.used() if not post.left_behind]

    def tell(self, number: int, *, within_s: float) -> None:
        """Pass a signal on; from the first on it has so long to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if self.until_s is None:
            self.until_s = time.monotonic() + within_s

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    @property
    def cause(self) -> str:
        """How it died, in words."""
        if self.killed:
            return self.killed
        status = self.status or 0
        if status >= 0:
            return f"it exited with status {status} in the middle of its work"
        try:
            return f"signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"signal {-status}"


def become(parent: int, *, cell: bool) -> None:
    """Be a child: die with the supervisor, before it where memory is short, and hear signals oneself."""
    signal.set_wakeup_fd(-1)
    for number in CAUGHT:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/oom_score_adj").write_text("600" if cell else "300")
