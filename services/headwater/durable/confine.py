"""Confinement of a turn: time, chance and identity answer from the run, the world is out of reach.

What `world` puts in others' places asks here, at each call, whether the calling thread is inside a turn.
`datetime` cannot be replaced, so time-machine turns the clock of the whole process while a turn lasts;
turns therefore take turns. It guards against mistakes, not against malice.
"""

from __future__ import annotations

import _frozen_importlib
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import time_machine

from headwater.durable.streams import Streams
from headwater.errors import ConfinementError

__all__ = [
    "audit",
    "ensure_hash_seed",
    "enter",
    "here",
    "leave",
    "monotonic",
    "monotonic_ns",
    "refuse",
    "turn",
    "wall_ms",
    "wall_ns",
]

monotonic = time.monotonic
"""The real clock, taken before anything was replaced: it bounds turns, never answers them."""
monotonic_ns = time.monotonic_ns

_NANOSECONDS = 1_000_000
_wall_less_monotonic_ns = time.time_ns() - monotonic_ns()
_turns = threading.Lock()
_travel = time_machine.travel(0, tick=False)
_run: Streams | None = None
_thread = 0
_ident = threading.get_ident


@contextmanager
def turn(streams: Streams) -> Iterator[None]:
    """Confine this thread to a run, one turn of the process at a time.

    Raises:
        RuntimeError: This thread is inside a turn already.
    """
    enter(streams)
    try:
        yield
    finally:
        leave()


def enter(streams: Streams) -> None:
    """Begin a turn; `leave` must follow."""
    global _run, _thread  # noqa: PLW0603 - one turn a process, because the clock is the process's
    if _thread == _ident():
        raise RuntimeError(
            "an execution was delivered to from inside a turn: hosts do that, agents never"
        )
    _turns.acquire()
    try:
        _travel.destination_timestamp_ns = streams.now_ms * _NANOSECONDS
        _travel.start()
    except BaseException:
        _turns.release()
        raise
    _forget_counters()
    _frozen_importlib._find_and_load = _load  # type: ignore[attr-defined] # noqa: SLF001 - see _load
    _thread = _ident()
    _run = streams


def leave() -> None:
    """End the turn."""
    global _run, _thread  # noqa: PLW0603 - one turn a process, because the clock is the process's
    _run = None
    _thread = 0
    _frozen_importlib._find_and_load = _find_and_load  # type: ignore[attr-defined] # noqa: SLF001 - see _load
    _forget_counters()
    _travel.stop()
    _turns.release()


def here() -> Streams | None:
    """Return the run that this thread is in a turn of."""
    run = _run
    return run if run is not None and _thread == _ident() else None


def wall_ns() -> int:
    """Return the real wall clock in nanoseconds, also while another thread is in a turn.

    `time.time` would answer from that thread's run. Between two turns the clock is read, within one
    the monotonic clock says how far it has gone since.
    """
    global _wall_less_monotonic_ns  # noqa: PLW0603 - one clock a process
    if _turns.acquire(blocking=False):
        try:
            _wall_less_monotonic_ns = time.time_ns() - monotonic_ns()
        finally:
            _turns.release()
    return _wall_less_monotonic_ns + monotonic_ns()


def wall_ms() -> int:
    """Return the real wall clock in milliseconds."""
    return wall_ns() // _NANOSECONDS


def _forget_counters() -> None:
    """Forget the newest time-ordered ids: they would make one run's ids depend on another's clock."""
    for module, names in _COUNTERS.items():
        if module in sys.modules:
            vars(sys.modules[module]).update(names)


_COUNTERS: dict[str, dict[str, None]] = {
    "pydantic_ai._uuid": {"_last_timestamp_v7": None},
    "uuid6": dict.fromkeys(("_last_v6_timestamp", "_last_v7_timestamp", "_last_v8_timestamp")),
}
"""Where libraries keep them; `uuid`'s own time-machine forgets."""


def refuse(attempt: str) -> ConfinementError:
    """Return the error for an attempt to touch the world, and mark the turn with it."""
    error = ConfinementError(
        f"the agent tried to {attempt}: agents decide and never touch the world, so that a run can be "
        "replayed on any machine; use a tool for it (@app.tool) and await that"
    )
    run = here()
    if run is not None and run.violation is None:
        run.violation = error
    return error


def ensure_hash_seed() -> None:
    """Start this interpreter again with `PYTHONHASHSEED=0` unless it runs so, for sets of strings."""
    if sys.flags.hash_randomization:
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - itself again


_REFUSED = {
    **dict.fromkeys(
        (
            "socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
            "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
            "http.client.connect", "urllib.Request",
        ),
        "use the network",
    ),
    **dict.fromkeys(
        (
            "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn",
            "os.spawn", "pty.spawn",
        ),
        "start a process",
    ),
    **dict.fromkeys(("_thread.start_new_thread", "_thread.start_joinable_thread"), "start a thread"),
    **dict.fromkeys(
        (
            "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
            "os.chmod", "os.chown", "sqlite3.connect",
        ),
        "change files",
    ),
    "open": "write a file",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = (os.devnull, ":memory:")


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what touches the world from inside a turn; `world.prepare` hooks it in."""
    if _run is None or event not in _REFUSED or _thread != _ident():
        return
    subject = arguments[0] if arguments else ""
    if subject in _HARMLESS or (event == "open" and not arguments[2] & _WRITING):
        return
    if _logs(sys._getframe(1)):  # noqa: SLF001 - the only way to see who asks
        return
    what = subject if isinstance(subject, (str, bytes, os.PathLike)) else ""
    raise refuse(f"{_REFUSED[event]} ({event}{' ' if what else ''}{os.fsdecode(what)})")


def _logs(frame: FrameType | None) -> bool:
    """Whether a log handler asks: handlers are the host's, and what they write is no answer to a run."""
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return True
        frame = frame.f_back
    return False


def _load(name: str, import_: Any) -> Any:
    """Import a module outside the run: that happens once a process, so it may not draw from the run."""
    global _run  # noqa: PLW0603 - one turn a process, because the clock is the process's
    run = here()
    if run is None:
        return _find_and_load(name, import_)
    # time-machine forgets `uuid`'s counters whenever it starts; the turn's go on after the import.
    counters = {
        key: value for key, value in vars(uuid).items() if key.startswith("_last_timestamp")
    }
    _run = None
    _travel.stop()
    try:
        return _find_and_load(name, import_)
    finally:
        _travel.start()
        vars(uuid).update(counters)
        _run = run


_find_and_load = _frozen_importlib._find_and_load  # type: ignore[attr-defined] # noqa: SLF001 - see _load
