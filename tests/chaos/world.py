"""The world outside: what calls did to it, one line each in a file that outlives whoever wrote it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator

BEGUN, ANSWERED = "begun", "answered"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What one process did to the world.

    Args:
        at_ms: When.
        event: `begun` or `answered`.
        name: The tool or model.
        what: Which of its calls; the same for a repeat.
        pid: Who.
    """

    at_ms: int
    event: str
    name: str
    what: str
    pid: int


class World:
    """A file to which every process appends; one short write each, so that lines never mix.

    Args:
        path: The file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: str, name: str, what: str) -> None:
        """Write a deed down; from here on it has happened, whoever dies."""
        line = f"{time.time_ns() // 1_000_000}\t{event}\t{name}\t{what}\t{os.getpid()}\n"
        os.write(self._file, line.encode())

    def deeds(self) -> Iterator[Deed]:
        """Return everything that happened, in order."""
        for line in self._path.read_text(encoding="utf-8").splitlines():
            at_ms, event, name, what, pid = line.split("\t")
            yield Deed(at_ms=int(at_ms), event=event, name=name, what=what, pid=int(pid))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
