"""Confinement of a turn: time, chance and identity answer from the run, the world is out of reach.

A process that hosts executions is prepared once, when it makes the first. What is replaced asks, at
each call, whether the calling thread is inside a turn, and otherwise does what it always did.
`datetime` cannot be replaced, so time-machine turns the clock of the whole process while a turn lasts;
turns therefore take turns. It guards against mistakes, not against malice.
"""

from __future__ import annotations

import _frozen_importlib
import logging
import os
import random as dice
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import time_machine

from headwater.errors import ConfinementError

if TYPE_CHECKING:
    from headwater.durable.streams import Streams

__all__ = [
    "UUID",
    "Random",
    "ensure_hash_seed",
    "enter",
    "here",
    "leave",
    "monotonic",
    "monotonic_ns",
    "prepare",
    "refuse",
    "replace",
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


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
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


class _SharedRandom(dice.Random):
    """The class that the module's hidden generator is given: inside a turn it is the run's.

    The functions of `random` are methods of that one generator, so whoever imported them before
    still holds this.
    """

    def random(self) -> float:
        run = here()
        return super().random() if run is None else run.module.random()

    def getrandbits(self, k: int, /) -> int:
        run = here()
        return super().getrandbits(k) if run is None else run.module.getrandbits(k)

    def seed(self, a: Any = None, version: int = 2) -> None:
        run = here()
        super().seed(a, version) if run is None else run.module.seed(a, version)

    def getstate(self) -> Any:
        run = here()
        return super().getstate() if run is None else run.module.getstate()

    def setstate(self, state: Any) -> None:
        run = here()
        super().setstate(state) if run is None else run.module.setstate(state)

    @property
    def gauss_next(self) -> float | None:
        """The second value of the pair that `gauss` made last."""
        run = here()
        kept = self.__dict__ if run is None else run.module.__dict__
        return kept.get("gauss_next")

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        run = here()
        kept = self.__dict__ if run is None else run.module.__dict__
        kept["gauss_next"] = value


class _Clock:
    """A clock that inside a turn stands at run time. Its method, unlike a function, never binds anew."""

    __slots__ = ("_original", "_per_ms")

    def __init__(self, original: Callable[[], float], *, per_ms: float) -> None:
        self._original = original
        self._per_ms = per_ms

    def read(self) -> float:
        """Return the clock's reading, in the original's unit."""
        run = here()
        return self._original() if run is None else run.now_ms * self._per_ms

    def read_ns(self) -> int:
        """Return the clock's reading in nanoseconds."""
        run = here()
        return int(self._original()) if run is None else run.now_ms * _NANOSECONDS


class _Chance:
    """The kernel's random bytes, or inside a turn the run's."""

    __slots__ = ("_original",)

    def __init__(self, original: Callable[..., bytes]) -> None:
        self._original = original

    def draw(self, size: int, *flags: int) -> bytes:
        """Return `size` bytes."""
        run = here()
        return self._original(size, *flags) if run is None else run.draw(size, _place())


def _place() -> str:
    """Return which function outside the standard library draws."""
    frame = sys._getframe(2)  # noqa: SLF001 - the only way to see who draws
    while frame.f_back is not None and _is_standard(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}"


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


class _Sleep:
    """`time.sleep`, refused inside a turn: it stops every run of the worker."""

    __slots__ = ("_original",)

    def __init__(self, original: Callable[[float], None]) -> None:
        self._original = original

    def sleep(self, seconds: float, /) -> None:
        """Sleep."""
        if here() is not None:
            raise refuse(
                f"sleep {seconds} s, which stops its whole worker (await asyncio.sleep instead)"
            )
        self._original(seconds)


def _start(self: threading.Thread) -> None:
    """Start a thread, unless inside a turn."""
    if here() is not None:
        raise refuse(f"start a thread ({self.name})")
    _thread_start(self)


def _seed(self: dice.Random, a: Any = None, version: int = 2) -> None:
    """Seed a generator; one made without a seed inside a turn is seeded by the run."""
    run = here()
    _random_seed(self, run.integer(_place()) if run is not None and a is None else a, version)


def _getnode() -> int:
    run = here()
    return _uuid_getnode() if run is None else run.node


def _warn_unawaited(coroutine: Any) -> None:
    """Warn, unless the coroutine dies because its whole execution is dropped."""
    run = here()
    if run is None or not run.discarding:
        _warn_unawaited_coroutine(coroutine)


_thread_start = threading.Thread.start
_random_seed = dice.Random.seed
_uuid_getnode = uuid.getnode
_warn_unawaited_coroutine = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined] # noqa: SLF001 - where the interpreter looks


def replace(places: dict[tuple[Any, str], Any]) -> None:
    """Put objects in other objects' places, also where a module outside the library holds them by name.

    Args:
        places: What to put, by module and name.
    """
    swaps = {}
    for (module, name), new in places.items():
        old = getattr(module, name)
        swaps[id(old)] = old, new
        setattr(module, name, new)
    for name, module in sys.modules.copy().items():  # other threads may import meanwhile
        if name.startswith(__package__) or _is_standard(name):
            continue  # this library keeps the originals, and the standard library waits by real clocks
        for key, value in dict(getattr(module, "__dict__", {})).items():
            if id(value) in swaps:
                setattr(module, key, swaps[id(value)][1])


def prepare() -> bool:
    """Prepare the process, once; whether it was not before."""
    global _prepared  # noqa: PLW0603 - one preparation a process
    with _preparing:
        if _prepared:
            return False
        _replace_all()
        _prepared = True
        return True


_prepared = False
_preparing = threading.Lock()


def _replace_all() -> None:
    shared = dice._inst  # noqa: SLF001 - whose methods the module's functions are
    shared.__class__ = _SharedRandom
    dice.Random.seed = _seed  # type: ignore[method-assign] # a generator without a seed asks here
    threading.Thread.start = _start  # type: ignore[method-assign] # before 3.12 no audit event tells
    chance = _Chance(os.urandom).draw
    setattr(dice, "_urandom", chance)  # noqa: B010 - secrets and SystemRandom draw from it
    setattr(warnings, "_warn_unawaited_coroutine", _warn_unawaited)  # noqa: B010 - where the interpreter looks
    places: dict[tuple[Any, str], Any] = {
        (os, "urandom"): chance,
        (os, "getrandom"): _Chance(os.getrandom).draw,
        (uuid, "getnode"): _getnode,
        (time, "sleep"): _Sleep(time.sleep).sleep,
    }
    for name in ("random", "getrandbits", "seed", "getstate", "setstate"):
        places[dice, name] = getattr(shared, name)
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        places[time, name] = _Clock(getattr(time, name), per_ms=0.001).read
        places[time, f"{name}_ns"] = _Clock(getattr(time, f"{name}_ns"), per_ms=1).read_ns
    replace(places)
    setattr(_audit, "__cantrace__", True)  # noqa: B010 - debuggers and coverage may look inside
    sys.addaudithook(_audit)
