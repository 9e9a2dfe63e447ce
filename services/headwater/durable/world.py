"""The world as a turn sees it: clocks, chance, identity and threads answer from the run, or refuse.

A process that hosts executions is prepared once, when it makes the first. What is replaced asks, at
each call, whether the calling thread is inside a turn, and otherwise does what it always did.
"""

from __future__ import annotations

import os
import random as dice
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from typing import Any

from headwater.durable import confine

_NANOSECONDS = 1_000_000


class _SharedRandom(dice.Random):
    """The class that the module's hidden generator is given: inside a turn it is the run's.

    The functions of `random` are methods of that one generator, so whoever imported them before
    still holds this.
    """

    def random(self) -> float:
        run = confine.here()
        return super().random() if run is None else run.module.random()

    def getrandbits(self, k: int, /) -> int:
        run = confine.here()
        return super().getrandbits(k) if run is None else run.module.getrandbits(k)

    def seed(self, a: Any = None, version: int = 2) -> None:
        run = confine.here()
        super().seed(a, version) if run is None else run.module.seed(a, version)

    def getstate(self) -> Any:
        run = confine.here()
        return super().getstate() if run is None else run.module.getstate()

    def setstate(self, state: Any) -> None:
        run = confine.here()
        super().setstate(state) if run is None else run.module.setstate(state)

    @property
    def gauss_next(self) -> float | None:
        """The second value of the pair that `gauss` made last."""
        run = confine.here()
        kept = self.__dict__ if run is None else run.module.__dict__
        return kept.get("gauss_next")

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        run = confine.here()
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
        run = confine.here()
        return self._original() if run is None else run.now_ms * self._per_ms

    def read_ns(self) -> int:
        """Return the clock's reading in nanoseconds."""
        run = confine.here()
        return int(self._original()) if run is None else run.now_ms * _NANOSECONDS


class _Chance:
    """The kernel's random bytes, or inside a turn the run's."""

    __slots__ = ("_original",)

    def __init__(self, original: Callable[..., bytes]) -> None:
        self._original = original

    def draw(self, size: int, *flags: int) -> bytes:
        """Return `size` bytes."""
        run = confine.here()
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
        if confine.here() is not None:
            raise confine.refuse(
                f"sleep {seconds} s, which stops its whole worker (await asyncio.sleep instead)"
            )
        self._original(seconds)


def _start(self: threading.Thread) -> None:
    """Start a thread, unless inside a turn."""
    if confine.here() is not None:
        raise confine.refuse(f"start a thread ({self.name})")
    _thread_start(self)


def _seed(self: dice.Random, a: Any = None, version: int = 2) -> None:
    """Seed a generator; one made without a seed inside a turn is seeded by the run."""
    run = confine.here()
    _random_seed(self, run.integer(_place()) if run is not None and a is None else a, version)


def _getnode() -> int:
    run = confine.here()
    return _uuid_getnode() if run is None else run.node


def _warn_unawaited(coroutine: Any) -> None:
    """Warn, unless the coroutine dies because its whole execution is dropped."""
    run = confine.here()
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
    setattr(confine.audit, "__cantrace__", True)  # noqa: B010 - debuggers and coverage may look inside
    sys.addaudithook(confine.audit)
