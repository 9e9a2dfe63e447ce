"""The world outside: what calls did to it, one line each in a file that outlives whoever wrote it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

from headwater.durable import confine

WORLD = "CHAOS_WORLD"
"""Variable: the file."""
HANDED, BEGUN, ANSWERED = "handed", "begun", "answered"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What one process did to the world.

    Args:
        at_ms: When.
        event: `handed` to the code that acts, `begun` or `answered`.
        name: The tool or model.
        what: The number of the task.
        key: The call's idempotency key, where the tool was told one.
        holder: Who did it: its instance.
    """

    at_ms: int
    event: str
    name: str
    what: str
    key: str
    holder: str


class World:
    """A file to which every process appends; one short write each, so that lines never mix.

    Args:
        path: The file.
        holder: Who writes.
    """

    def __init__(self, path: pathlib.Path, holder: str = "") -> None:
        self._path, self._holder = path, holder
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @classmethod
    def of_this_process(cls) -> World:
        """Return the one that the environment names."""
        return cls(pathlib.Path(os.environ[WORLD]), os.environ.get("HEADWATER_INSTANCE", ""))

    def note(self, event: str, name: str, what: str, key: str = "") -> None:
        """Write a deed down; from here on it has happened, whoever dies.

        The real clock: a process that hosts agents too shows a run's time while it takes a turn.
        """
        parts = (str(confine.wall_ms()), event, name, what, key, self._holder)
        os.write(self._file, ("\t".join(parts) + "\n").encode())

    def deeds(self) -> Iterator[Deed]:
        """Return everything that happened, in order."""
        for line in self._path.read_text(encoding="utf-8").splitlines():
            at_ms, event, name, what, key, holder = line.split("\t")
            yield Deed(at_ms=int(at_ms), event=event, name=name, what=what, key=key, holder=holder)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
