"""A process that has everything imported and forks the fleet's processes, so that a start costs little.

`python -m tests.chaos.nursery` reads a request a line and answers each with a line. Whoever is forked
is a process like any other: a session, an environment and a log of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

ROOT = pathlib.Path(__file__).parents[2]
_CLONE_NEWNET = 0x40000000
_TICK_S = 0.02


class Forked:
    """One process, as `subprocess.Popen` would show it.

    Args:
        nursery: Whose child it is.
        pid: Its pid, and its group's.
    """

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; `None` while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask({"poll": self.pid})["status"]
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_TICK_S)
        return status

    def terminate(self) -> None:
        """Tell it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and what it keeps."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Nursery:
    """The harness's end: starts the process that forks, and asks it; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: pathlib.Path,
        *,
        network: str = "",
        group: pathlib.Path | None = None,
    ) -> Forked:
        """Start `headwater` with these arguments.

        Args:
            arguments: After the command's name.
            environment: Beside what every process has.
            log: What it says is appended here.
            network: A network namespace that it joins.
            group: File of a control group that it joins.
        """
        request = {
            "arguments": [*arguments],
            "environment": dict(environment),
            "log": str(log),
            "network": network,
            "group": "" if group is None else str(group),
        }
        return Forked(self, self.ask(request)["pid"])

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and return its answer."""
        with self._lock:
            process = self._begin()
            assert process.stdin is not None, "it has pipes"
            assert process.stdout is not None, "it has pipes"
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        assert answer, "the nursery has died"
        return json.loads(answer)

    def close(self) -> None:
        """End it, and whoever it forked."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None, "it has pipes"
            process.stdin.close()
            process.wait(20)

    def _begin(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            plain = {
                k: v for k, v in os.environ.items() if not k.startswith(("HEADWATER_", "CHAOS_"))
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**plain, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
                start_new_session=True,  # Ctrl-C is for the matrix alone, which ends it by itself
            )
            atexit.register(self.close)
        return self._process


NURSERY = Nursery()
"""The one of this process."""


def _serve() -> list[str] | None:
    """Answer until nobody asks; in a process that was forked, return its arguments."""
    forked: list[int] = []
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: dict[str, Any]
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if pid == 0:
                _become(request)
                return [*request["arguments"]]
            forked.append(pid)
            answer = {"pid": pid}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    for pid in forked:
        with contextlib.suppress(ProcessLookupError):  # most have ended long ago
            os.killpg(pid, signal.SIGKILL)
    return None


def _become(request: Mapping[str, Any]) -> None:
    """Be a process of one's own."""
    os.setsid()
    if request["group"]:
        pathlib.Path(request["group"]).write_text(str(os.getpid()))
    if request["network"]:
        with pathlib.Path("/var/run/netns", request["network"]).open() as there:
            joined = ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _CLONE_NEWNET)
        assert joined == 0, os.strerror(ctypes.get_errno())
    with pathlib.Path(request["log"]).open("ab") as log, open(os.devnull) as nothing:  # noqa: PTH123 - no path
        _onto(nothing, 0)
        _onto(log, 1)
        _onto(log, 2)
    os.environ.update(request["environment"])


def _onto(file: IO[Any], number: int) -> None:
    os.dup2(file.fileno(), number)


def _main() -> int | None:
    from tests.chaos import child  # noqa: PLC0415 - as above; the harness needs none of it

    import headwater.models.scripted  # noqa: F401, PLC0415 - what an app would import, before any fork

    arguments = _serve()
    return None if arguments is None else child.start(arguments)


if __name__ == "__main__":
    sys.exit(_main())
