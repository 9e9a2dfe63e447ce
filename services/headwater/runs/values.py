"""Values by reference, as runs use them: shortened before they are sent, whole before they are delivered."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from headwater.contracts.messages import Answered, BlobRef, Failed
from headwater.core import blobs
from headwater.core.decider import Turn
from headwater.core.execution import Answer, Delivery
from headwater.errors import BlobLostError
from headwater.runs.rows import Entry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Large:
    """When a value goes by reference.

    Args:
        inline_bytes_max: A larger one does.
        bytes_max: A larger one goes nowhere.
    """

    inline_bytes_max: int
    bytes_max: int


def shortened(turn: Turn, large: Large | None, value: bytes) -> bytes | BlobRef:
    """Return a value as it travels; a large one is kept before the turn commits."""
    if large is None or len(value) <= large.inline_bytes_max:
        return value
    return turn.keep(value)


def arrived(turn: Turn, delivery: Delivery) -> Delivery:
    """Return a delivery that can be made: an answer whose value is gone for good is a failure.

    Raises:
        AbsentError: Its value is not at hand.
    """
    try:
        whole(turn, delivery)
    except BlobLostError as error:
        assert isinstance(delivery, Answer), "nothing else has a value by reference"
        failed = Failed(error="BlobLost", detail=str(error))
        return dataclasses.replace(delivery, outcome=failed)
    return delivery


def whole(turn: Turn, delivery: Delivery) -> Delivery:
    """Return a delivery with its value.

    Raises:
        AbsentError: It is not at hand.
        BlobLostError: The store has no such value.
    """
    if not isinstance(delivery, Answer) or not isinstance(delivery.outcome, Answered):
        return delivery
    value = delivery.outcome.value
    if isinstance(value, bytes):
        return delivery
    return dataclasses.replace(delivery, outcome=Answered(value=turn.load(value)))


def for_replay(turn: Turn, task: bytes | BlobRef, entries: Iterable[Entry]) -> None:
    """Go on only with everything at hand that a replay delivers.

    Raises:
        AbsentError: Some is not.
    """
    turn.need(
        ref.name
        for value in (task, *(_value(entry.delivery) for entry in entries))
        for ref in ([value] if isinstance(value, BlobRef) else [])
    )


def keep_again(turn: Turn, nodes: Iterable[bytes], kept: Collection[str]) -> tuple[str, ...]:
    """Keep parts of conversations that a replay made and the journal does not name; return their names.

    A run whose earlier turns had no store of blobs, or cut their conversations elsewhere, goes on from
    parts that nobody has kept yet.
    """
    missing = [node for node in nodes if blobs.ref_of(node).name not in kept]
    return tuple(turn.keep(node).name for node in missing)


def size(delivery: Delivery) -> int:
    """Return how many bytes a replay has to deliver, wherever they are."""
    return blobs.size_of(_value(delivery)) + 64


def _value(delivery: Delivery) -> bytes | BlobRef:
    outcome = delivery.outcome if isinstance(delivery, Answer) else None
    if isinstance(outcome, Answered):
        return outcome.value
    return getattr(delivery, "value", b"")
