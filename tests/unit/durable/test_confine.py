"""During a turn the world is out of reach of the thread it runs on, and of no other."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.durable.plays import run

from headwater.core.execution import Answer, Begin, Raised, Tick
from headwater.durable import confine
from headwater.durable.running import Running, Session
from headwater.durable.streams import Streams
from headwater.errors import ConfinementError


def refused(act: Callable[[], Any], *, catch: bool = True) -> str:
    """Return the words of the refusal that ends the delivery, though the function caught it."""

    async def main(session: Session) -> bytes:
        try:
            act()
        except BaseException:
            if not catch:
                raise
        return b""

    running = Running(main, seed="r")
    with pytest.raises(ConfinementError) as told:
        running.deliver(Begin(), now_ms=1)
    with pytest.raises(ConfinementError):
        running.deliver(Tick(), now_ms=2)
    running.close()
    return str(told.value)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: socket.create_connection(("127.0.0.1", 9)), "network"),
        (socket.socket, "network (socket.__new__)"),
        (lambda: socket.getaddrinfo("localhost", 80), "network (socket.getaddrinfo localhost)"),
        (lambda: subprocess.run(["true"], check=False), "start a process (subprocess.Popen true)"),
        (lambda: os.system("true"), "start a process"),  # noqa: S605 - refused
        (os.fork, "start a process (os.fork)"),
        (lambda: threading.Thread(target=print).start(), "start a thread"),
        (lambda: Path("never.txt").write_text("x"), "write a file (open never.txt)"),
        (lambda: Path("never.txt").open("a"), "write a file (open never.txt)"),  # noqa: SIM115 - refused
        (lambda: os.open("never.txt", os.O_CREAT), "write a file (open never.txt)"),
        (lambda: Path("never.txt").unlink(), "change files (os.remove never.txt)"),
        (lambda: Path("never").mkdir(), "change files (os.mkdir never)"),
        (lambda: sqlite3.connect("never.db"), "change files (sqlite3.connect never.db)"),
        (lambda: time.sleep(9), "await asyncio.sleep"),
        (lambda: asyncio.get_running_loop().add_reader(0, print), "event loop's add_reader"),
        (lambda: asyncio.get_running_loop().subprocess_exec(None), "event loop's subprocess_exec"),  # type: ignore[arg-type, misc] # refused before it is looked at
    ],
)
@pytest.mark.parametrize("catch", [True, False])
def test_touching_the_world_ends_delivery_even_if_caught(
    act: Callable[[], Any], word: str, catch: bool
) -> None:
    """Sockets, processes, threads and writes are refused with words that say what to use instead."""
    words = refused(act, catch=catch)
    assert word in words
    assert "use a tool" in words
    assert not list(Path().glob("never*"))


def test_world_is_in_reach_again_after_turn(tmp_path: Path) -> None:
    """Control: the same acts pass outside a turn, and in other threads during one."""
    with confine.turn(Streams("r")):
        thread: list[Any] = []
        ready, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (ready.wait(), _touch(tmp_path, thread), leave.set()))
    other.start()

    def wait() -> None:
        ready.set()
        assert leave.wait(60)

    run(wait)
    other.join()
    assert thread == [b"x"]


def test_without_audit_hook_file_would_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: it is the hook that refuses."""
    monkeypatch.setattr(confine, "_REFUSED", {})
    run(lambda: (tmp_path / "file").write_text("x"))
    assert (tmp_path / "file").read_text() == "x"


def _touch(place: Path, found: list[Any]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
    (place / "file").write_bytes(b"x")
    found.append((place / "file").read_bytes())


def test_reading_and_null_device_are_allowed(tmp_path: Path) -> None:
    """Reading files is no message to the world; configuration and templates are read that way."""
    (tmp_path / "file").write_text("words")

    def act() -> str:
        Path(os.devnull).write_text("x")
        with sqlite3.connect(":memory:") as base:
            base.execute("select 1")
        return (tmp_path / "file").read_text()

    assert run(act) == "words"


def test_log_handlers_may_write(tmp_path: Path) -> None:
    """Handlers are the host's: one that opens its file late does so inside a turn."""
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    logger = logging.getLogger("test.confine")
    logger.addHandler(handler)
    try:
        run(lambda: logger.error("said"))
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text() == "said\n"


def test_import_in_turn_runs_outside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is imported once a process, so it draws nothing from the run and may do as it likes."""
    name = "imported_in_a_turn"
    source = """
        import random, socket, time, uuid
        socket.socket().close()
        DRAWN = [random.random(), str(uuid.uuid4()), time.time()]
        """
    (tmp_path / f"{name}.py").write_text("\n".join(map(str.strip, source.splitlines())))
    monkeypatch.syspath_prepend(tmp_path)

    def act() -> list[Any]:
        before = uuid.uuid1().time
        module = __import__(name)
        assert uuid.uuid1().time == before + 1
        return [module.DRAWN, random.random(), str(uuid.uuid4()), time.time()]

    first, second = run(act), run(act)
    assert first == second  # the first imported it, the second found it
    assert all(drawn != answered for drawn, answered in zip(first[0], first[1:], strict=True))
    assert first[3] == 0.0
    assert (tmp_path / "__pycache__").exists() or sys.dont_write_bytecode


def test_import_in_another_thread_goes_on_during_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn changes imports of its own thread alone."""
    (tmp_path / "imported_elsewhere.py").write_text("HERE = 1")
    monkeypatch.syspath_prepend(tmp_path)
    ready, leave = threading.Event(), threading.Event()
    other = threading.Thread(
        target=lambda: (ready.wait(), __import__("imported_elsewhere"), leave.set())
    )
    other.start()

    def wait() -> None:
        ready.set()
        assert leave.wait(60)

    run(wait)
    other.join()
    assert "imported_elsewhere" in sys.modules


def test_turns_do_not_nest() -> None:
    """A turn that waited for itself would hang the worker."""

    def act() -> str:
        try:
            Running(_nothing, seed="inner").deliver(Begin(), now_ms=1)
        except RuntimeError as error:
            return str(error)
        return ""

    assert "inside a turn" in run(act)


async def _nothing(session: Session) -> bytes:
    return b""


def test_turns_of_threads_take_turns() -> None:
    """The clock is the process's, so two threads' turns never overlap."""
    found: list[int] = []

    def act() -> None:
        found.append(1)
        deadline = confine.monotonic() + 0.01
        while confine.monotonic() < deadline:
            assert sum(found) == 1
        found.append(-1)

    threads = [threading.Thread(target=run, args=(act,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8


def test_clock_that_cannot_be_turned_leaves_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that could not begin must not stop every later one."""

    def fail() -> None:
        raise RuntimeError("no time travel")

    monkeypatch.setattr(confine._travel, "start", fail)
    with pytest.raises(RuntimeError, match="no time travel"):
        run(lambda: 1)
    monkeypatch.undo()
    assert run(lambda: 1) == 1


def test_refusal_outside_turn_marks_nothing() -> None:
    """The loop's refusals are errors wherever they are met."""
    assert "use a tool" in str(confine.refuse("dance"))


def test_process_starts_again_without_hash_randomization() -> None:
    """Sets of strings have one order in every agent process."""
    program = (
        "import sys; from headwater.durable import confine; confine.ensure_hash_seed(); "
        "print(sys.flags.hash_randomization, sys.argv[1:], hash('a'))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, "word"],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("random", "3", "0")
    ]
    assert told[0].startswith("0 ['word']")
    assert len(set(told)) == 1


@pytest.mark.parametrize("randomized", [0, 1])
def test_process_starts_again_only_if_need_be(
    randomized: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same program with the same arguments, and only the hash seed changed."""
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(sys, "flags", SimpleNamespace(hash_randomization=randomized))
    monkeypatch.setattr(os, "execve", lambda *told: started.append(told))
    confine.ensure_hash_seed()
    assert len(started) == randomized
    for program, arguments, environment in started:
        assert program == arguments[0] == sys.executable
        assert arguments[1:] == sys.orig_argv[1:]
        assert environment == {**os.environ, "PYTHONHASHSEED": "0"}


def test_coroutine_never_awaited_is_still_warned_of() -> None:
    """Only a run that is dropped loses its coroutines quietly."""

    async def never() -> None:
        """Nobody waits for this."""

    with pytest.warns(RuntimeWarning, match="never awaited"):
        never()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        run(lambda: never() and None)


def test_names_imported_earlier_answer_from_the_run() -> None:
    """`from time import monotonic` before headwater was imported is no way out."""
    program = (
        "from time import monotonic; from random import random; from os import urandom;"
        "import threading, time; own, was = id(threading._time), monotonic;"
        "from headwater.durable import running; from headwater.core.execution import Begin;"
        "assert time.monotonic is was;\n"
        "async def main(session): return repr((monotonic(), random(), urandom(2))).encode()\n"
        "one = [running.Running(main, seed='s').deliver(Begin(), now_ms=7).ended for _ in '12'];"
        "assert one[0] == one[1] and one[0].value.startswith(b'(0.007'), one;"
        "assert id(threading._time) == own"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=180,
    )


def test_confinement_error_of_one_run_is_not_anothers() -> None:
    """A refusal marks the turn it was met in, and no other."""
    refused(socket.socket)
    assert run(lambda: 1) == 1


def test_first_refusal_is_the_one_told() -> None:
    """What a function tried first is what its author must mend."""

    def act() -> None:
        for one in (lambda: os.mkdir("never"), socket.socket):  # noqa: PTH102 - what agents may call
            with suppress(ConfinementError):
                one()

    assert "os.mkdir" in refused(act)


def test_answer_after_failure_names_state() -> None:
    """A host that delivers after an end is told so."""
    running = Running(_nothing, seed="r")
    running.deliver(Begin(), now_ms=1)
    with pytest.raises(RuntimeError, match="has ended"):
        running.deliver(Tick(), now_ms=2)
    fresh = Running(_nothing, seed="r")
    with pytest.raises(RuntimeError, match="has not begun"):
        fresh.deliver(Answer(number=1, outcome=None), now_ms=2)  # type: ignore[arg-type] # never read
    assert not isinstance(run(lambda: None), Raised)


def test_other_threads_read_the_real_clock_while_a_turn_lasts():
    """`time.time` answers from the run everywhere meanwhile, which is the control; `wall_ns` does not."""
    before, inside, outside = confine.wall_ns(), threading.Event(), threading.Event()
    found: list[int] = []

    def look() -> None:
        assert inside.wait(60)
        found.extend((confine.wall_ns(), time.time_ns()))
        outside.set()

    other = threading.Thread(target=look)
    other.start()
    streams = Streams("r")
    streams.now_ms = 1_000
    with confine.turn(streams):
        inside.set()
        assert outside.wait(60)
        within = confine.wall_ns()
        in_ms = confine.wall_ms()
    other.join()
    assert before <= found[0] <= within <= confine.wall_ns()
    assert before // 1_000_000 <= in_ms <= confine.wall_ms()
    assert found[1] == 1_000 * 1_000_000
