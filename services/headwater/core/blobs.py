"""Blobs: values too large to travel, kept in a store under their tenant by what they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Protocol

from headwater.contracts.messages import Answered, Ask, BlobRef, Reply, Start
from headwater.core.execution import Answer
from headwater.errors import BlobLostError, HeadwaterError

NAME = re.compile(rb"hwb1[ln]-[0-9a-f]{64}")
"""A blob's name as it stands in whatever refers to it, so that references are found in any bytes."""
_NODE = "hwb1n-"


class Blobs(Protocol):
    """A store of values by reference.

    A put is repeated whenever the value is sent again, which makes the blob young again: whoever
    collects what nothing refers to leaves young blobs alone, so the two need not know each other.
    """

    @property
    def inline_bytes_max(self) -> int:
        """A larger value goes to the store."""
        ...

    @property
    def bytes_max(self) -> int:
        """A larger value goes nowhere."""
        ...

    @property
    def held_bytes_max(self) -> int:
        """A batch, or the calls under way of one effector, hold no more of such values at once."""
        ...

    def put(self, tenant: str, value: bytes) -> Future[None]:
        """Keep a value; durable when the future is done.

        The future raises `TransientError` if the store is away.
        """
        ...

    def get(self, tenant: str, name: str) -> Future[bytes]:
        """Return a value that is of its name.

        The future raises `TransientError` if the store is away, `BlobLostError` if it has no such value.
        """
        ...


class AbsentError(HeadwaterError):
    """A turn needs values that are not at hand: it is taken back, and taken again when they are.

    Args:
        tenant: Whose.
        names: Which.
    """

    def __init__(self, tenant: str, names: Iterable[str]) -> None:
        super().__init__("values by reference are needed first")
        self.tenant, self.names = tenant, tuple(names)


class AtHand(Protocol):
    """Values that were fetched for a turn."""

    def get(self, tenant: str, name: str) -> bytes | BlobLostError | None:
        """Return a value, why there is none, or `None` if it was not fetched."""
        ...


class Nothing:
    """The values of a turn for which none were fetched."""

    def get(self, tenant: str, name: str) -> bytes | BlobLostError | None:
        """Return `None`."""
        return None


NOTHING = Nothing()


def ref_of(value: bytes) -> BlobRef:
    """Return what refers to a value: the same for the same bytes, whoever makes it."""
    kind = "n" if NAME.search(value) else "l"
    digest = hashlib.blake2b(value, digest_size=32).hexdigest()
    return BlobRef(name=f"hwb1{kind}-{digest}", size=len(value))


def is_name(text: str) -> bool:
    """Say whether a text is a blob's name."""
    return NAME.fullmatch(text.encode()) is not None


def names_in(data: bytes) -> set[str]:
    """Return the names of blobs in any bytes: a record's, a row's, a blob's."""
    return {name.decode() for name in NAME.findall(data)}


def is_node(name: str) -> bool:
    """Say whether a blob names others."""
    return name.startswith(_NODE)


def size_of(value: bytes | BlobRef) -> int:
    """Return a value's size, wherever it is."""
    return value.size if isinstance(value, BlobRef) else len(value)


def inline(value: bytes | BlobRef) -> bytes:
    """Return a value that was brought back before."""
    assert isinstance(value, bytes), f"{value} was not brought back"
    return value


def needed_by(message: Any) -> list[BlobRef]:
    """Return what is needed to take a message: its value, where that is by reference."""
    match message:
        case (
            Reply(outcome=Answered(value=BlobRef() as found))
            | Answer(outcome=Answered(value=BlobRef() as found))
        ):
            return [found]
        case Start() if isinstance(message.task.value, BlobRef):
            return [message.task.value]
        case Ask(arguments=BlobRef() as found):
            return [found]
    return []
