"""The fleet of one run: a process a seat, started again when it ends, whatever ended it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from tests.chaos import app, child

ROOT = pathlib.Path(__file__).parents[2]
ALL = "coordinator,agents,models,tools"
STOP_S_MAX = 30.0
SETTINGS = {
    "HEADWATER_APP": "tests.chaos.app:app",
    "HEADWATER_HTTP__PORT": "0",
    "HEADWATER_KAFKA__TRANSACTION_MS": "3000",
    "HEADWATER_KAFKA__HEARTBEAT_MS": "500",
    "HEADWATER_KAFKA__SESSION_MS": "6000",
    "HEADWATER_KAFKA__PARTITIONS": "4",
    "HEADWATER_LOOPS__LEASE_S": "3",
    "HEADWATER_LOOPS__DRAIN_S": "10",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One process of the fleet.

    Args:
        instance: Its name in every group.
        roles: What it runs.
        prefix: The command that it runs under: a namespace, for example.
        settings: Its own.
        arguments: More of `headwater run`.
        group: File of a control group that it joins before it starts; `None` for none.
    """

    instance: str
    roles: str = ALL
    prefix: tuple[str, ...] = ()
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    group: pathlib.Path | None = None


class Fleet:
    """Processes by seat.

    Args:
        bootstrap: The cluster.
        namespace: The run's own.
        directory: For what processes say, their deaths, and the world.
        settings: Of the environment, for all seats.
    """

    def __init__(
        self, bootstrap: str, namespace: str, directory: pathlib.Path, settings: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.seats: dict[str, Seat] = {}
        self.starts = 0
        self.ended: list[tuple[str, int]] = []
        """What ended that nobody had told to: the instance, and its status."""
        self._told: set[str] = set()
        self._leaving: set[str] = set()
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HEADWATER_", "CHAOS_"))},
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            app.WORLD: str(directory / "world.tsv"),
            child.DEATHS: str(directory),
            "HEADWATER_NAMESPACE": namespace,
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
            **SETTINGS,
            **settings,
        }

    def command(self, *arguments: str, timeout_s: float = 60) -> str:
        """Run one `headwater` command and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli.main", *arguments],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, seat: Seat) -> None:
        """Start a process."""
        self.seats[seat.instance] = seat
        self.starts += 1
        command = [
            *seat.prefix,
            sys.executable,
            "-m",
            "tests.chaos.child",
            "run",
            "--role",
            seat.roles,
            *seat.arguments,
        ]
        if seat.group is not None:
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(seat.group), *command]
        with (self.directory / f"{seat.instance}.log").open("ab") as log:
            self.running[seat.instance] = subprocess.Popen(
                command,
                env={
                    **self._environment,
                    **self._supervised(seat),
                    **seat.settings,
                    "HEADWATER_INSTANCE": seat.instance,
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the matrix alone, which ends them itself
            )

    def signal(self, instance: str, number: signal.Signals) -> None:
        """Send a process a signal, and what it keeps."""
        os.killpg(self.running[instance].pid, number)

    def kill(self, instance: str) -> None:
        """End one at once, and what it keeps; the next look starts it again."""
        os.killpg(self.running[instance].pid, signal.SIGKILL)
        self.running[instance].wait(10)

    def end(self, instance: str) -> None:
        """End one at once, and what it keeps, and start none in its place."""
        process = self.running.pop(instance)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def roll(self, seat: Seat) -> None:
        """Tell one to end in good order; the look that sees it ended starts the new one."""
        self.seats[seat.instance] = seat
        self._told.add(seat.instance)
        self.running[seat.instance].terminate()  # its supervisor passes it on

    def retire(self, instance: str) -> None:
        """Tell one to end in good order, and start none in its place."""
        self._leaving.add(instance)
        self.running[instance].terminate()

    def _supervised(self, seat: Seat) -> dict[str, str]:
        """Whoever dies at a point is started again by the fleet, which counts it; not by a supervisor."""
        given = seat.settings.get(child.POINT) or self._environment.get(child.POINT)
        return {"HEADWATER_SUPERVISOR__ENABLED": "false"} if given else {}

    def revive(self) -> None:
        """Start again whatever has ended, as a supervisor would."""
        for instance, process in [*self.running.items()]:
            status = process.poll()
            if status is None:
                continue
            if instance in self._leaving:
                self._leaving.discard(instance)
                del self.running[instance]
                continue
            if instance in self._told and status == 0:
                self._told.discard(instance)
            else:
                self.ended.append((instance, status))
            self.start(self.seats[instance])

    def killed(self) -> int:
        """Return how many processes somebody else killed: the kernel, for their memory."""
        return sum(status == -signal.SIGKILL for _, status in self.ended)

    def deaths(self) -> int:
        """Return how many processes died at a named point."""
        paths = self.directory.glob("*.deaths")
        return sum(len(path.read_text().splitlines()) for path in paths)

    def stop(self) -> None:
        """End all, orderly, then at once."""
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
        until = time.monotonic() + STOP_S_MAX
        for process in self.running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self.running.clear()
