"""The decider of intake: foreign tasks in, checked and stamped; it remembers nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from headwater.contracts import headers as hygiene
from headwater.contracts.messages import Admit, Header, Task
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Turn
from headwater.core.messages import Address, Meta, Position, digest, task_id
from headwater.errors import PoisonError

CARRIED = ("ce_subject", "ce_time", "tracestate", "baggage")
Sample = Callable[[bytes], bool]


class Input(Protocol):
    """An agent's input type (`contracts.derive.Shape`)."""

    def decode(self, data: bytes, schemas: Any) -> Any:
        """Read a framed datum."""
        ...

    def digest_of(self, value: Any) -> bytes:
        """Return a value's datum."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One agent's command topic.

    Args:
        agent: The agent's name.
        input: Its input type.
        tenants: Tenants its principals may name; `None` for any.
        actors: Whether they may name actors.
    """

    agent: str
    input: Input
    tenants: tuple[str, ...] | None = None
    actors: bool = False


class Intake:
    """Takes foreign records in.

    Args:
        doors: By command topic.
        schemas: Writer schemas.
        admission: Tenant to the address of its admission inbox.
        sample: Whether a new trace, by its id, is sampled.
    """

    name = "intake"
    takes = Record | None

    def __init__(
        self,
        doors: Mapping[str, Door],
        *,
        schemas: Any,
        admission: Callable[[str], Address],
        sample: Sample,
    ) -> None:
        self._doors = doors
        self._schemas = schemas
        self._admission = admission
        self._sample = sample

    def react(self, turn: Turn, message: Record) -> None:
        """Check one record and pass it on as ours.

        Raises:
            PoisonError: It breaks a rule; the message names the field.
            TransientError: The registry is away.
        """
        record, door = message, self._doors[message.partition.topic]
        if not record.value:
            raise PoisonError("tombstone", "the value is empty")
        if len(record.value) > hygiene.VALUE_BYTES_MAX:
            raise PoisonError(
                "too-large",
                f"the value has {len(record.value)} bytes; at most {hygiene.VALUE_BYTES_MAX}",
            )
        hygiene.sizes(record.key, record.headers)
        found = hygiene.unique(record.headers)
        tenant = hygiene.tenant(found, door.tenants)
        event_id = hygiene.text(found, "ce_id") or (
            f"{turn.at.topic_id}/{turn.at.number}/{turn.at.offset}"
        )
        source = hygiene.text(found, "ce_source") or door.agent
        value = door.input.decode(record.value, self._schemas)
        meta = Meta(
            id=event_id,
            tenant=tenant,
            correlation_id=event_id,
            actor=hygiene.text(found, "ce_actorid") if door.actors else "",
            traceparent=hygiene.traceparent(found) or self._trace(turn.at),
            deadline_ms=hygiene.deadline_ms(found),
            carried=tuple(
                Header(name=name, value=found[name]) for name in CARRIED if found.get(name)
            ),
        )
        turn.meta = meta
        turn.send(
            Admit(
                agent=door.agent,
                task_id=task_id(tenant, door.agent, source, event_id),
                digest=digest(door.input.digest_of(value)),
                task=Task(
                    topic=record.partition.topic,
                    partition=record.partition.number,
                    offset=record.offset,
                    key=record.key,
                    value=record.value,
                    headers=tuple(Header(name=n, value=v) for n, v in record.headers),
                ),
            ),
            self._admission(tenant),
        )

    def refused(
        self, turn: Turn, record: Record, message: Record | None, error: PoisonError
    ) -> None:
        """Nothing was open yet, so nothing is to be closed."""

    def forget(self, partition: Partition) -> None:
        """Nothing is kept."""

    def _trace(self, at: Position) -> bytes:
        trace = at.derive(-2)
        flags = b"01" if self._sample(trace) else b"00"
        return b"00-%b-%b-%b" % (trace.hex().encode(), at.derive(-3, size=8).hex().encode(), flags)


def as_foreign(record: Record) -> tuple[Meta, Record]:
    """Open a foreign record: nothing in it is believed yet."""
    return Meta(id="", tenant=""), record
