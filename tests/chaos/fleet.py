"""The fleet of one run: a process a seat, started again when it ends, whatever ended it."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping

from tests.chaos import child, world
from tests.chaos.nursery import NURSERY, Forked
from tests.stopping import group, stop

from headwater.testing.invariants import Death

ALL = "coordinator,agents,models,tools"
STOP_S_MAX, GONE_S_MAX = 30.0, 120.0
"""How long who is told to stop may take, and who was killed, on a machine that is busy."""
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
        network: A network namespace that it lives in; empty for the machine's own.
        settings: Its own.
        arguments: More of `headwater run`.
        group: File of a control group that it joins before it starts; `None` for none.
    """

    instance: str
    roles: str = ALL
    network: str = ""
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
        self.running: dict[str, Forked] = {}
        self.seats: dict[str, Seat] = {}
        self.deaths: list[Death] = []
        """Starts: whoever joins takes partitions over, with calls under way."""
        self.ended: list[tuple[str, int]] = []
        """What ended that nobody had told to: the instance, and its status."""
        self._told: set[str] = set()
        self._leaving: set[str] = set()
        self._environment = {
            world.WORLD: str(directory / "world.tsv"),
            child.DEATHS: str(directory),
            "HEADWATER_NAMESPACE": namespace,
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
            **SETTINGS,
            **settings,
        }

    def command(self, *arguments: str, timeout_s: float = 400) -> None:
        """Run one `headwater` command."""
        log = self.directory / "command.log"
        plain = {**self._environment, child.POINT: "", child.KIND: ""}
        status = NURSERY.fork(arguments, plain, log).wait(timeout_s)
        assert status == 0, log.read_text(errors="replace")

    def start(self, seat: Seat) -> None:
        """Start a process."""
        self.seats[seat.instance] = seat
        self.deaths.append(Death(who=seat.instance, at_ms=time.time_ns() // 1_000_000))
        self.running[seat.instance] = NURSERY.fork(
            ["run", "--role", seat.roles, *seat.arguments],
            {
                **self._environment,
                **self._supervised(seat),
                **seat.settings,
                "HEADWATER_INSTANCE": seat.instance,
            },
            self.directory / f"{seat.instance}.log",
            network=seat.network,
            group=seat.group,
        )

    def freeze(self, instance: str) -> None:
        """Have a process and what it keeps stand still, and return once they do."""
        stop(*group(self.running[instance].pid))

    def thaw(self, instance: str) -> None:
        """Have them go on where they were."""
        self.running[instance].signal(signal.SIGCONT)

    def kill(self, instance: str) -> None:
        """End one at once, and what it keeps; the next look starts it again."""
        self.running[instance].signal(signal.SIGKILL)
        self.running[instance].wait(GONE_S_MAX)

    def end(self, instance: str) -> None:
        """End one at once, and what it keeps, and start none in its place."""
        process = self.running.pop(instance)
        process.signal(signal.SIGKILL)
        process.wait(GONE_S_MAX)

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

    def died_at_points(self) -> int:
        """Return how many processes died at a named point."""
        paths = self.directory.glob("*.deaths")
        return sum(len(path.read_text().splitlines()) for path in paths)

    def stop(self) -> None:
        """End all, orderly, then at once."""
        for process in self.running.values():
            process.signal(signal.SIGCONT)
            process.terminate()
        until = time.monotonic() + STOP_S_MAX
        for process in self.running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.signal(signal.SIGKILL)
                process.wait(GONE_S_MAX)
        self.running.clear()
