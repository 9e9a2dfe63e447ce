"""What a run borrows from the machine: a network of its own, a small disk, a limit of memory.

Each says what it lacks where it cannot be had, has a name that no other run has, and is given back.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import uuid

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_THIRD_MAX = 10


def _run(*command: str) -> str:
    """Run a command; return what it says if it fails, else nothing."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def lacks_network() -> str:
    """Say why there can be no network namespace."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip`: apt-get install iproute2"
    name = f"hw{uuid.uuid4().hex[:8]}"
    said = _run("ip", "netns", "add", name)
    if not said:
        _run("ip", "netns", "del", name)
    return f"no network namespace: {said}" if said else ""


class Network:
    """A namespace with one cable to this machine, which can be unplugged or made to lose packets.

    The address has as many characters as 127.0.0.1, so that a proxy can put it into answers.
    """

    def __init__(self) -> None:
        self._own = uuid.uuid4().hex[:8]
        self.name = f"hw{self._own}"
        self._near, self._far = f"hn{self._own}", f"hf{self._own}"
        inside = ("ip", "netns", "exec", self.name)
        self._must("ip", "netns", "add", self.name)
        self._must("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far)
        self._must("ip", "link", "set", self._far, "netns", self.name)
        self.host = self._address()
        peer = self.host.removesuffix(".1") + ".2/30"
        self._must("ip", "link", "set", self._near, "up")
        self._must(*inside, "ip", "addr", "add", peer, "dev", self._far)
        self._must(*inside, "ip", "link", "set", self._far, "up")
        self._must(*inside, "ip", "link", "set", "lo", "up")
        self.loses = not _run(
            "tc", "qdisc", "add", "dev", self._near, "root", "netem", "loss", "0%"
        )
        """Whether this kernel can lose single packets."""

    def unplug(self) -> None:
        """Lose everything."""
        self._must("ip", "link", "set", self._near, "down")

    def lose(self, percent: int) -> None:
        """Lose so much of what goes there."""
        loss = ("netem", "loss", f"{percent}%", "delay", "20ms", "15ms")
        self._must("tc", "qdisc", "change", "dev", self._near, "root", *loss)

    def plug(self) -> None:
        """Lose nothing."""
        self._must("ip", "link", "set", self._near, "up")
        if self.loses:
            self._must("tc", "qdisc", "change", "dev", self._near, "root", "netem", "loss", "0%")

    def close(self) -> None:
        """Take it apart; whatever ran in it has ended."""
        _run("ip", "link", "del", self._near)
        _run("ip", "netns", "del", self.name)

    def _address(self) -> str:
        for third in range(_THIRD_MAX):
            host = f"10.99.{third}.1"
            taken = subprocess.run(
                ["ip", "-o", "addr", "show", "to", host], capture_output=True, text=True, check=True
            )
            if not taken.stdout and not _run("ip", "addr", "add", f"{host}/30", "dev", self._near):
                return host
        self.close()
        raise AssertionError("every address from 10.99.0.1 to 10.99.9.1 is taken")

    def _must(self, *command: str) -> None:
        if said := _run(*command):
            self.close()
            raise AssertionError(f"{' '.join(command)}: {said}")


def lacks_disk() -> str:
    """Say why there can be no small disk."""
    return (
        "" if os.geteuid() == 0 and shutil.which("mount") else "a small disk needs root to mount it"
    )


class Disk:
    """A disk in memory that holds little.

    Args:
        path: Where; made if it is not there.
        size_kb: How much it holds.
    """

    def __init__(self, path: pathlib.Path, size_kb: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        said = _run("mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "headwater-chaos", str(path))
        assert not said, said

    def close(self) -> None:
        """Take it out."""
        _run("umount", "-l", str(self.path))


def lacks_memory() -> str:
    """Say why there can be no limit of memory."""
    root = _root()
    if root is None:
        return "no control group of memory that could be divided"
    probe = root / f"headwater-probe-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
    except OSError as error:
        return f"no control group of memory: {error.strerror}"
    probe.rmdir()
    return ""


def _root() -> pathlib.Path | None:
    """Return where groups of memory are made: the first version's tree, or the second's."""
    if (_CGROUP / "memory" / "memory.limit_in_bytes").exists():
        return _CGROUP / "memory"
    children = _CGROUP / "cgroup.subtree_control"
    if children.exists() and "memory" in children.read_text().split():
        return _CGROUP
    return None


class Memory:
    """A limit for whoever joins: the kernel kills who takes more.

    Args:
        limit_mb: How much.
    """

    def __init__(self, limit_mb: int) -> None:
        root = _root()
        assert root is not None, "asked of `lacks_memory` first"
        self._path = root / f"headwater-{uuid.uuid4().hex[:8]}"
        self._path.mkdir()
        first = self._path / "memory.limit_in_bytes"
        limit = first if first.exists() else self._path / "memory.max"
        limit.write_text(str(limit_mb << 20))

    @property
    def joins(self) -> pathlib.Path:
        """The file into which whoever joins writes its pid."""
        return self._path / "cgroup.procs"

    def close(self) -> None:
        """Remove it; whoever joined has ended."""
        with contextlib.suppress(OSError):  # a process that is just ending keeps it for a moment
            self._path.rmdir()
