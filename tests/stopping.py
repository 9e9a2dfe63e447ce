"""Stopping processes: a busy machine's threads see a signal to stop only when they run next."""

from __future__ import annotations

import os
import pathlib
import signal
import time

_PROC = pathlib.Path("/proc")
_LOOK_S = 0.001
_STILL_S_MAX = 120.0


def stop(*pids: int) -> None:
    """Stop processes, and return once no thread of theirs goes on: what they did, they did before that."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + _STILL_S_MAX
    while not all(map(_stands_still, pids)):
        assert time.monotonic() < until, f"of {pids} some go on {_STILL_S_MAX:g} s after SIGSTOP"
        time.sleep(_LOOK_S)


def group(leader: int) -> list[int]:
    """Return the processes of a group."""
    pids = [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if (found := _stat(_PROC / str(pid))) and int(found[2]) == leader]


def _stands_still(pid: int) -> bool:
    threads = (_PROC / str(pid) / "task").iterdir()
    return all(not (found := _stat(thread)) or found[0] in "TtZX" for thread in threads)


def _stat(of: pathlib.Path) -> list[str]:
    """Return state, parent, group and what follows; nothing of what has ended."""
    try:
        return (of / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
