"""A fleet as a shell would run it: one OS process a role, killed, stopped and started by pid."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from tests.stopping import group, stop

ROOT = pathlib.Path(__file__).parents[2]
GONE_S_MAX = 120.0
"""How long a machine that is busy may take to end who was killed."""
ROLES = {
    "coordinator-1": "coordinator",
    "agents-1": "agents",
    "agents-2": "agents",
    "tools-1": "tools",
    "tools-2": "tools",
    "models-1": "models",
    "gateway-1": "gateway",
}


class Fleet:
    """Processes by instance name.

    Args:
        bootstrap: The cluster.
        namespace: The fleet's own.
        logs: Where each process writes what it says.
        sabotage: Which protection is taken out, for a control; empty for none.
        settings: Of the environment, instead of the fleet's own.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        logs: pathlib.Path,
        sabotage: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.logs = logs
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")},
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            "E2E_MARKS": str(logs),
            "HEADWATER_APP": "tests.e2e.app:app",
            "HEADWATER_NAMESPACE": namespace,
            "HEADWATER_HTTP__PORT": "0",
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
            "HEADWATER_KAFKA__TRANSACTION_MS": "3000",
            "HEADWATER_KAFKA__HEARTBEAT_MS": "500",
            "HEADWATER_KAFKA__SESSION_MS": "6000",
            "HEADWATER_KAFKA__PARTITIONS": "4",
            **(settings or {}),
        }
        self._program = ["tests.e2e.sabotage", sabotage] if sabotage else ["headwater.cli.main"]
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, *arguments: str, timeout_s: float = 400) -> str:
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

    def start(self, instance: str) -> None:
        """Start one process."""
        with (self.logs / f"{instance}.log").open("ab") as log:
            self.running[instance] = subprocess.Popen(
                [sys.executable, "-m", *self._program, "run", "--role", ROLES[instance]],
                env={**self._environment, "HEADWATER_INSTANCE": instance},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, instance: str) -> None:
        """End one at once, and what it keeps."""
        process = self.running.pop(instance)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GONE_S_MAX)

    def freeze(self, instance: str) -> None:
        """Stop one where it stands."""
        stop(*group(self.running[instance].pid))

    def thaw(self, instance: str) -> None:
        """Let it go on."""
        os.killpg(self.running[instance].pid, signal.SIGCONT)

    def revive(self) -> list[str]:
        """Start again whatever has ended, as a supervisor would; return which."""
        ended = [name for name, process in self.running.items() if process.poll() is not None]
        for name in ended:
            self.start(name)
        return ended

    def stop(self) -> None:
        """End all, orderly, then at once."""
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
        until = time.monotonic() + 20
        for process in self.running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(GONE_S_MAX)
        self.running.clear()
