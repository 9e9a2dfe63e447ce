"""Lines: what a process and the cells that are tried for it say to each other, over a socket.

Both ends are forks of one program, so they say it as pickled values.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

from headwater.contracts.messages import Ask, Failed, InDoubt
from headwater.contracts.records import Record
from headwater.core.effector import Call, Done

_SIZE = struct.Struct("<I")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A cell has loaded the app, and takes work."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Perform:
    """Make a call, or find out whether it happened.

    Args:
        number: Of this line, for the answer.
        effector: Whose call it is.
        verify: Whether it is only to be found out.
        record: The request's record, for the post.
        call: Its terms.
        ask: What is asked.
        attempt: Id of the attempt.
        tried: Its number.
        last_state: What the last heartbeat of the attempt before said.
    """

    number: int
    effector: str
    verify: bool
    record: Record
    call: Call
    ask: Ask
    attempt: str
    tried: int
    last_state: Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TakeTurn:
    """Take a turn over a run's rows, to see whether it is survived."""

    number: int
    agent: str
    run: str
    record: Record
    rows: Sequence[Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Nobody waits for this call any more."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A call goes on."""

    number: int
    state: Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A piece of a call's progress."""

    number: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A call or a turn has ended."""

    number: int
    result: Done | Failed | InDoubt | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """A call has raised.

    Args:
        number: Which.
        kind: `transient`, `not-done`, `poison`, `timeout`, or `other`.
        name: The error's class, or its code.
        words: Its words.
        retry_after_s: How long it asks to be left alone.
    """

    number: int
    kind: str
    name: str
    words: str
    retry_after_s: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The supervisor's word on a cell that died."""

    cause: str


def frame(what: object) -> bytes:
    """Return something as it goes over a line."""
    data = pickle.dumps(what)
    return _SIZE.pack(len(data)) + data


class Line:
    """One end of a line.

    Args:
        reader: What the other end says.
        writer: What we say.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Line:
        """Open a line over one end of a pair of sockets."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def say(self, what: object) -> None:
        """Say something; nothing if the other end has gone, which `hear` will tell."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(frame(what))
            await self._writer.drain()

    async def hear(self) -> Any:
        """Return what is said next; `None` once the other end has gone, in the middle of a word perhaps."""
        try:
            (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
            data = await self._reader.readexactly(size)
            return pickle.loads(data)  # noqa: S301 - the other end is a fork of this program
        except (asyncio.IncompleteReadError, ConnectionError, pickle.UnpicklingError):
            return None

    def close(self) -> None:
        """Hang up; a cell whose line ends, ends."""
        self._writer.close()

    async def closed(self) -> None:
        """Wait until we have hung up."""
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
