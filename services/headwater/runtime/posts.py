"""Posts: what users' code is at work on, in memory that outlives the process which wrote it.

A turn or a call takes a post before users' code runs and leaves it after. Whoever finds the memory
after a death reads there what was under way. Taking and leaving are writes of a few bytes; nothing
is sent, and nothing is asked of the system.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import mmap
import os
import pathlib
import struct
import threading
from collections.abc import Iterator
from enum import IntEnum

from headwater.contracts.records import Partition
from headwater.durable.confine import wall_ms

_MAGIC = b"HWPOSTS1"
_HEAD_BYTES = 64
_JOINED_AT, _ENDED_AT, _BEAT_AT = 16, 17, 24
_POST_BYTES = 512
_FIXED = struct.Struct("<BBBxIqqQHH")
"""Task, thread, kind, partition, offset, since (ms), serial, bytes of the topic, bytes of what."""
_SERIAL_AT = struct.calcsize("<BBBxIqq")
_TEXT_AT = _FIXED.size
_TEXT_MAX = _POST_BYTES - _TEXT_AT
_WORD = struct.Struct("<Q")
_BODY = struct.Struct("<BxIqqQHH")
_NONE = -1


class Kind(IntEnum):
    """What is at work at a post."""

    TURN = 1
    CALL = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One post that was in use.

    Args:
        kind: A turn, or a call.
        partition: Of the record it is about.
        offset: Of that record.
        what: The run of a turn, the call of a call.
        since_ms: When it was taken, by the wall clock.
        serial: Counts up with every post taken, so that two uses of one post differ.
        left_behind: Whether the call has its answer, and only a thread of it goes on.
    """

    kind: Kind
    partition: Partition
    offset: int
    what: str
    since_ms: int
    serial: int
    left_behind: bool = False

    @property
    def place(self) -> str:
        """Where its record is: `topic[partition]@offset`."""
        return f"{self.partition}@{self.offset}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """A post that was in use when a process died.

    Args:
        post: The post.
        alone: Whether no other was.
        cause: How the process died.
    """

    post: Post
    alone: bool
    cause: str


class LeftError(Exception):
    """A thread came to its post too late: nobody waits for its work, and nobody would watch it."""


class Posts:
    """The posts of one process.

    Args:
        count: How many may be in use at once; one more goes unseen.
        path: A file for them, so that they outlive the machine's other processes too; otherwise they are
            memory shared with whoever forks this process.
    """

    def __init__(self, count: int, path: pathlib.Path | None = None) -> None:
        size = _HEAD_BYTES + count * _POST_BYTES
        self.path = path
        if path is None:
            self._memory = mmap.mmap(-1, size)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w+b") as file:
                os.ftruncate(file.fileno(), size)
                self._memory = mmap.mmap(file.fileno(), size)
        self._memory[: len(_MAGIC)] = _MAGIC
        self._free: list[int] = [*range(count - 1, -1, -1)]
        self._serials = itertools.count(1)
        self._topics: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._beats = itertools.count(1)

    def take(self, kind: Kind, partition: Partition, offset: int, what: str) -> int:
        """Take a post; return which, for `leave`."""
        topic = self._topics.get(partition.topic)
        if topic is None:
            topic = self._topics[partition.topic] = partition.topic.encode()
        label = what.encode()[: _TEXT_MAX - len(topic)]
        try:
            index: int = self._free.pop()
        except IndexError:
            return _NONE
        memory, at = self._memory, _at(index)
        text = topic + label
        memory[at + _TEXT_AT : at + _TEXT_AT + len(text)] = text
        _BODY.pack_into(
            memory, at + 2, kind, partition.number, offset, wall_ms(),
            next(self._serials), len(topic), len(label),
        )  # fmt: skip
        memory[at] = 1
        return index

    def renew(self, index: int) -> None:
        """Say that what is at a post has come further: its time begins again."""
        if index != _NONE:
            _WORD.pack_into(self._memory, _at(index) + _SERIAL_AT, next(self._serials))

    def leave(self, index: int) -> None:
        """Leave a post; while a thread of it goes on it stays in use, as one left behind."""
        if index == _NONE:
            return
        at = _at(index)
        with self._lock:
            self._memory[at] = 0
            if not self._memory[at + 1]:
                self._free.append(index)

    def serial(self, index: int) -> int:
        """Return which use of a post this is, for `hold`; 0 where there is no post."""
        if index == _NONE:
            return 0
        return int(_WORD.unpack_from(self._memory, _at(index) + _SERIAL_AT)[0])

    def hold(self, index: int, serial: int) -> bool:
        """Say that a thread works at a post; `release` must follow if this returns true.

        Raises:
            LeftError: Whoever took it has left it by now.
        """
        if index == _NONE:
            return False
        at = _at(index)
        with self._lock:
            if not self._memory[at] or self.serial(index) != serial:
                raise LeftError("its call was answered before the thread began")
            if self._memory[at + 1]:
                return False
            self._memory[at + 1] = 1
            return True

    def release(self, index: int) -> None:
        """Say that the thread has ended."""
        at = _at(index)
        with self._lock:
            self._memory[at + 1] = 0
            if not self._memory[at]:
                self._free.append(index)

    @contextlib.contextmanager
    def at(self, kind: Kind, partition: Partition, offset: int, what: str) -> Iterator[int]:
        """Be at a post for as long as a block lasts."""
        index = self.take(kind, partition, offset, what)
        try:
            yield index
        finally:
            self.leave(index)

    def used(self) -> list[Post]:
        """Return the posts in use."""
        tasks = self._memory[_HEAD_BYTES::_POST_BYTES]
        threads = self._memory[_HEAD_BYTES + 1 :: _POST_BYTES]
        found = (self._read(at) for at in range(len(tasks)) if tasks[at] or threads[at])
        return [post for post in found if post is not None]

    def __len__(self) -> int:
        return (len(self._memory) - _HEAD_BYTES) // _POST_BYTES

    def beat(self) -> None:
        """Say that the event loop turns."""
        _WORD.pack_into(self._memory, _BEAT_AT, next(self._beats))

    @property
    def beats(self) -> int:
        """How often the event loop said that it turns."""
        return int(_WORD.unpack_from(self._memory, _BEAT_AT)[0])

    def join(self) -> None:
        """Say that the process has written what it was told to, and joins."""
        self._memory[_JOINED_AT] = 1

    @property
    def joined(self) -> bool:
        """Whether the process came so far."""
        return bool(self._memory[_JOINED_AT])

    def end(self, status: int) -> None:
        """Say that the process ends of its own accord, and with which status."""
        self._memory[_ENDED_AT] = 1 + min(max(status, 0), 254)

    @property
    def ended(self) -> int | None:
        """The status that the process ends with; `None` if it did not say so."""
        status = self._memory[_ENDED_AT]
        return status - 1 if status else None

    def close(self) -> None:
        """Let go of the memory, and remove its file."""
        self._memory.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, index: int) -> Post | None:
        memory, at = self._memory, _at(index)
        task, thread = memory[at], memory[at + 1]
        if not task and not thread:
            return None
        _, _, kind, number, offset, since_ms, serial, topic, label = _FIXED.unpack_from(memory, at)
        if kind not in _KINDS:
            return None  # it was being taken when its process died
        text = memory[at + _TEXT_AT : at + _TEXT_AT + topic + label]
        return Post(
            kind=Kind(kind),
            partition=Partition(text[:topic].decode("utf-8", "replace"), number),
            offset=offset,
            what=text[topic:].decode("utf-8", "replace"),
            since_ms=since_ms,
            serial=serial,
            left_behind=not task,
        )


_KINDS = frozenset(Kind)


def _at(index: int) -> int:
    return _HEAD_BYTES + index * _POST_BYTES


def found(path: pathlib.Path) -> list[Post]:
    """Return the posts that were in use in a file that a dead process left."""
    data = path.read_bytes()
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEAD_BYTES:
        return []
    posts = Posts((len(data) - _HEAD_BYTES) // _POST_BYTES)
    posts._memory[: len(data)] = data  # noqa: SLF001 - it is this module's own
    return posts.used()
