"""The supervisor: a small process that has users' code run in children, and outlives them.

It forks, so a child begins with everything imported, and reads in the child's posts what was under
way when it died. It touches no log: what it found, the next child writes down before it joins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import pathlib
import select
import signal
import socket
import sys
import time

from headwater.children import CAUGHT, CELL, Child, Part, become
from headwater.errors import SettingsError
from headwater.runtime import lines
from headwater.runtime import posts as posting
from headwater.runtime.posts import Accusation, Post, Posts
from headwater.watching import Limits, Watch

logger = logging.getLogger(__name__)

TICK_S = 0.25
"""How often children are looked at."""
GRACE_S = 10.0
"""How long a child that was told to stop may take beyond its drain."""
ENDING_S = 3.0
"""How long a child may go on after it said that it ends: a thread of it may never."""
_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NAMED_MAX = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How children are kept.

    Args:
        name: Of this instance, for messages and files.
        posts: How many posts a child has.
        limits: When a child is ended.
        drain_s: How long one may take to stop.
        path: Directory for posts that outlive this process too; `None` for memory alone.
        starts_max: How often in a row a child may die before it joins.
        backoff_s_max: Longest wait before a start.
        calm_s: A child that lives for so long has its next start at once.
    """

    name: str
    posts: int
    limits: Limits
    drain_s: float
    path: pathlib.Path | None = None
    starts_max: int = 5
    backoff_s_max: float = 10.0
    calm_s: float = 60.0


class Supervisor:
    """Keeps a process alive, and the cells it asks for.

    Args:
        plan: How.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._children: dict[int, Child] = {}
        self._accused: list[Accusation] = []
        self._left: list[Posts | pathlib.Path] = []
        """Posts of the dead, kept until what they say is in the log."""
        self._file = 0
        self._starts = 0
        self._failed = 0
        self._quick = 0
        self._stopping = False
        self._retiring = False
        self._control: socket.socket | None = None
        self._wake, self._signals = os.pipe()
        for end in (self._wake, self._signals):
            os.set_blocking(end, False)
        self._recover()

    def run(self) -> Part | int:
        """Keep a process alive until it ends in good order.

        Returns:
            In each child that part of the fleet it is; in the supervisor, once all is over, the exit status.

        Raises:
            SettingsError: The process dies again and again before it joins.
        """
        for number in CAUGHT:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)
        gc.freeze()  # what is imported by now stays in pages that children share
        while True:
            part = self._start()
            if part is not None:
                return part
            main = self._main
            while main.status is None:
                part = self._round(TICK_S)
                if part is not None:
                    return part
            status = self._ended(main)
            if status is not None:
                return status
            self._pause()
            if self._stopping:
                return 0

    @property
    def _main(self) -> Child:
        return next(child for child in self._children.values() if not child.cell)

    def _start(self) -> Part | None:
        """Fork the process; return what it is in the child, `None` here."""
        self._starts += 1
        posts = self._posts()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self._fork(posts):
            ours.close()
            accused = tuple(self._accused)
            return Part(posts=posts, accused=accused, starts=self._starts, control=its)
        its.close()
        self._control = ours
        return None

    def _fork(self, posts: Posts, *, line: socket.socket | None = None) -> bool:
        """Fork; return whether this is the child."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            become(parent, cell=line is not None)
            os.close(self._wake)
            os.close(self._signals)
            if self._control is not None:
                self._control.close()
            for other in self._children.values():
                if other.line is not None:
                    other.line.close()
            return True
        watch = Watch(pid, posts, self._plan.limits)
        self._children[pid] = Child(
            pid=pid, posts=posts, watch=watch, began_s=time.monotonic(), line=line
        )
        return False

    def _round(self, tick_s: float) -> Part | None:
        """Wait for news, and look at every child; in a new cell, return what it is."""
        waiting: list[int | socket.socket] = [self._wake]
        if self._control is not None:
            waiting.append(self._control)
        ready, _, _ = select.select(waiting, [], [], tick_s)
        if self._wake in ready:
            self._hear()
        self._reap()
        if self._control is not None and self._control in ready:
            part = self._asked()
            if part is not None:
                return part
        now_s = time.monotonic()
        for child in self._children.values():
            self._look(child, now_s)
        joined = [c for c in self._children.values() if not c.cell and c.posts.joined]
        if joined and (self._accused or self._left):
            self._settled()
        return None

    def _hear(self) -> None:
        """Pass on what we were told, once: a child that is ending already would die of the second."""
        try:
            told = os.read(self._wake, 512)
        except BlockingIOError:
            return
        for number in told:
            if number in _PASSED and not self._stopping:
                self._stopping = True
                for child in self._children.values():
                    if not child.cell:
                        child.tell(number, within_s=self._plan.drain_s + GRACE_S)

    def _asked(self) -> Part | None:
        """Fork a cell for the process that asked."""
        assert self._control is not None, "somebody asked"
        data, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        if not data:
            self._control.close()
            self._control = None
            return None
        work = socket.socket(fileno=fds[0])
        if self._stopping or data != CELL:
            work.close()
            return None
        posts = self._posts()
        work.setblocking(False)
        if self._fork(posts, line=work):
            return Part(posts=posts, work=work)
        return None

    def _look(self, child: Child, now_s: float) -> None:
        verdict = child.watch.look(now_s, tick_s=TICK_S)
        if child.posts.ended is not None and not child.ending:
            child.ending, child.until_s = True, now_s + ENDING_S
        over = child.until_s is not None and now_s > child.until_s
        if over and not child.killed:
            child.killed = "it did not end in time"
            child.kill()
        elif verdict is None or child.killed or child.until_s is not None:
            return
        elif verdict.orderly and not child.cell:
            logger.error("%s is replaced: %s", self._plan.name, verdict.words)
            self._retiring = True
            child.tell(signal.SIGTERM, within_s=self._plan.drain_s + GRACE_S)
        else:
            child.killed = verdict.words
            child.kill()

    def _reap(self) -> None:
        """Take note of who has ended; as the first process of a container, of strangers too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.get(pid)
            if child is None:
                continue
            child.status = os.waitstatus_to_exitcode(status)
            if child.cell:
                del self._children[pid]
                self._bury_cell(child)

    def _bury_cell(self, child: Child) -> None:
        assert child.line is not None, "a cell has a line"
        if child.posts.ended is None and not self._stopping:
            used = child.at_work()
            logger.error(
                "a cell of %s died: %s; at work: %s", self._plan.name, child.cause, _named(used)
            )
            with contextlib.suppress(OSError):  # its process has gone, or does not listen
                child.line.send(lines.frame(lines.Gone(cause=child.cause)))
        child.line.close()
        child.posts.close()

    def _ended(self, main: Child) -> int | None:
        """Return the exit status if all is over; otherwise note who is suspected."""
        for child in self._children.values():
            if child.cell:
                child.kill()
        while any(child.cell for child in self._children.values()):
            self._reap()
            time.sleep(0.001)
        del self._children[main.pid]
        if self._control is not None:
            self._control.close()
            self._control = None
        assert main.status is not None, "it has ended"
        if main.posts.joined:
            self._settled()
        used = main.at_work()
        status = main.posts.ended
        if status is None:
            status = main.status if main.status >= 0 else 128 - main.status
            if self._stopping and main.status == -signal.SIGTERM and not main.posts.joined:
                status = 0  # it heard of its end before it could catch it, and had begun nothing
        retired, self._retiring = self._retiring, False
        orderly = main.posts.ended is not None or (main.status >= 0 and not used)
        if self._stopping or (orderly and not retired):
            main.posts.close()
            return status
        if orderly:
            main.posts.close()
            self._quick = 0
        else:
            self._bury(main, used)
        return None

    def _bury(self, main: Child, used: list[Post]) -> None:
        cause, joined = main.cause, main.posts.joined
        accused = [Accusation(post=post, alone=len(used) == 1, cause=cause) for post in used]
        self._accused += accused
        self._left.append(main.posts)
        lived_s = time.monotonic() - main.began_s
        self._failed = 0 if joined else self._failed + 1
        self._quick = 0 if lived_s > self._plan.calm_s else self._quick + 1
        logger.error(
            "%s died after %.1f s: %s; at work: %s", self._plan.name, lived_s, cause, _named(used)
        )
        if self._failed >= self._plan.starts_max:
            raise SettingsError(
                f"{self._plan.name} died {self._failed} times before it joined, last: {cause}; run it with "
                "HEADWATER_SUPERVISOR__ENABLED=false to see where"
            )

    def _pause(self) -> None:
        """Wait before the next start, the longer the more often it died soon."""
        wait_s = min(self._plan.backoff_s_max, 0.2 * 2 ** min(self._quick - 1, 16))
        until_s = time.monotonic() + wait_s
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            self._round(min(TICK_S, left_s))

    def _posts(self) -> Posts:
        path = None
        if self._plan.path is not None:
            self._file += 1
            path = self._plan.path / self._plan.name / f"{self._file}.posts"
        return Posts(self._plan.posts, path)

    def _recover(self) -> None:
        """Read what processes left that died together with their supervisor."""
        if self._plan.path is None:
            return
        used = []
        for path in sorted((self._plan.path / self._plan.name).glob("*.posts")):
            if path.stem.isdecimal():
                self._file = max(self._file, int(path.stem))
            used += [post for post in posting.found(path) if not post.left_behind]
            self._left.append(path)
        cause = "it died together with its supervisor"
        self._accused = [Accusation(post=p, alone=len(used) == 1, cause=cause) for p in used]
        if used:
            logger.error("%s died earlier: %s; at work: %s", self._plan.name, cause, _named(used))

    def _settled(self) -> None:
        """What the dead left is in the log by now."""
        self._accused.clear()
        for left in self._left:
            if isinstance(left, Posts):
                left.close()
            else:
                left.unlink(missing_ok=True)
        self._left.clear()


def _noted(_number: int, _frame: object) -> None:
    """A signal is read from the pipe."""


def _named(used: list[Post]) -> str:
    if not used:
        return "nobody"
    words = ", ".join(f"{post.what} ({post.place})" for post in used[:_NAMED_MAX])
    more = len(used) - _NAMED_MAX
    return words if more <= 0 else f"{words} and {more} more"
