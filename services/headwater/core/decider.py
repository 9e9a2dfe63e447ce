"""A decider: a deterministic reaction to one record, and the turn it writes into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import BlobRef
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.core import blobs
from headwater.core.messages import Address, Key, Meta, Position, in_life
from headwater.core.state import Layer, R, Row, State
from headwater.errors import BlobLostError, PoisonError

M_contra = TypeVar("M_contra", contravariant=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """A row that its partition's owner answers, when due, with a `Wake` in the same inbox."""

    name: Key
    due_ms: int
    meta: Meta

    @property
    def key(self) -> Key:
        """A timer is filed under its name."""
        return self.name


class Encoded(Frozen, kw_only=True):
    """A value with a CloudEvents type of its own: bytes that are encoded already, or a message of ours."""

    type: str
    value: Any


class Sent(Frozen, kw_only=True):
    """A message a turn sends: what, where, and with which meta and further headers."""

    message: Any
    to: Address
    meta: Meta
    headers: Headers = ()


class Turn:
    """One record's chance to read rows, write rows and send messages; all of it commits or none."""

    __slots__ = ("_at_hand", "_ordinal", "at", "kept", "layer", "meta", "now_ms", "sent")

    def __init__(
        self,
        below: State,
        *,
        at: Position,
        meta: Meta,
        now_ms: int,
        at_hand: blobs.AtHand = blobs.NOTHING,
    ) -> None:
        self.layer = Layer(below)
        """What the turn wrote, for the loop that commits it."""
        self._ordinal = 0
        self._at_hand = at_hand
        self.at = at
        self.meta = meta
        self.now_ms = now_ms
        """The record's append time, the log's own."""
        self.sent: list[Sent | Draft] = []
        self.kept: dict[str, bytes] = {}
        """Values by reference that must be in the store before the turn commits, by name."""

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row, this turn's writes included."""
        return self.layer.get(kind, *key)

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix in key order, this turn's writes included."""
        return self.layer.scan(kind, *prefix)

    def put(self, row: Row) -> None:
        """Write a row."""
        self.layer.put(row)

    def drop(self, row: Row) -> None:
        """Remove a row."""
        self.layer.drop(row)

    def send(
        self,
        message: Any,
        to: Address,
        *,
        meta: Meta | None = None,
        headers: Headers = (),
        life: int | None = None,
    ) -> str:
        """Send a message for the same tenant, caused by this record; return its derived id.

        Args:
            message: One of `contracts.messages`, or `Encoded`.
            to: Where it goes.
            meta: For whom it speaks instead of this record's own meta: a run answers control from
                outside in its own task's name. Its id is replaced by the derived one.
            headers: Further headers, for example `ce_runid`.
            life: Which run of its id it is from, where an answer must be to that run and to no other.
        """
        of = self.meta if meta is None else meta
        own = self.at.derive(self._ordinal).hex()
        if life is not None:
            own = in_life(own, life)
        self._ordinal += 1
        traceparent = of.traceparent
        if len(traceparent) == _TRACEPARENT_LENGTH and traceparent[-1] in _SAMPLED:
            span = self.at.span_id.hex().encode()
            traceparent = b"%b-%b-%b" % (traceparent[:35], span, traceparent[-2:])
        consequence = Meta(
            id=own,
            tenant=of.tenant,
            correlation_id=of.correlation_id,
            causation_id=self.meta.id,
            actor=of.actor,
            traceparent=traceparent,
            deadline_ms=of.deadline_ms,
            carried=of.carried,
        )
        self.sent.append(Sent(message=message, to=to, meta=consequence, headers=headers))
        return own

    def relay(self, draft: Draft) -> None:
        """Write a record as it is, without any header of ours: dead letters keep their bytes."""
        self.sent.append(draft)

    def keep(self, value: bytes) -> BlobRef:
        """Have a value kept in the store of blobs before the turn commits; return what refers to it."""
        ref = blobs.ref_of(value)
        self.kept[ref.name] = value
        return ref

    def need(self, names: Iterable[str]) -> None:
        """Go on only with these values at hand.

        Raises:
            AbsentError: Some are not: the loop fetches all of them and takes the turn again.
        """
        tenant = self.meta.tenant
        wanted = list(names)
        if any(self._at_hand.get(tenant, name) is None for name in wanted):
            raise blobs.AbsentError(tenant, wanted)

    def load(self, value: bytes | BlobRef) -> bytes:
        """Return a value, wherever it is.

        Raises:
            AbsentError: It is not at hand.
            BlobLostError: The store has no such value.
        """
        if isinstance(value, bytes):
            return value
        found = self._at_hand.get(self.meta.tenant, value.name)
        if found is None:
            raise blobs.AbsentError(self.meta.tenant, [value.name])
        if isinstance(found, BlobLostError):
            raise found
        return found


_TRACEPARENT_LENGTH = 55
_SAMPLED = b"13579bdf"
"""Last digits of flags whose lowest bit says that somebody records the trace."""


class Decider(Protocol[M_contra]):
    """A deterministic reaction: no clock, no dice, no network; what it remembers is rows."""

    @property
    def name(self) -> str:
        """For logs, spans and metrics."""
        ...

    @property
    def takes(self) -> Any:
        """The union of the messages it reacts to; another one in its inbox is refused."""
        ...

    def react(self, turn: Turn, message: M_contra) -> None:
        """React to one message.

        Raises:
            PoisonError: Refuses the message, with all the turn did.
            TransientError: Something needed to decide is away; the partition waits.
        """
        ...

    def refused(
        self, turn: Turn, record: Record, message: M_contra | None, error: PoisonError
    ) -> None:
        """React, in a fresh turn, to a refusal: close the slot, answer the parent.

        `message` is `None` if the record could not even be decoded.
        """
        ...

    def forget(self, partition: Partition) -> None:
        """Drop whatever is cached for a partition: it was lost, or a commit came to nothing."""
        ...
