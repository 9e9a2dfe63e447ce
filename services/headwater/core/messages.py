"""What every message carries besides itself: where it goes, who caused it, and an id of its own."""

from __future__ import annotations

import functools
import hashlib

from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import Header

Key = tuple[str | int, ...]


def digest(*parts: bytes | str | int, size: int = 16) -> bytes:
    """Hash length-prefixed parts, so that no two lists of parts share their bytes.

    Args:
        *parts: What to hash; text as UTF-8, integers as decimal text.
        size: Length of the digest, in bytes.
    """
    return hashlib.blake2b(b"".join([_prefixed(part) for part in parts]), digest_size=size).digest()


def _prefixed(part: bytes | str | int) -> bytes:
    data = part if isinstance(part, bytes) else str(part).encode()
    return len(data).to_bytes(4, "big") + data


@functools.lru_cache(maxsize=1_024)
def _place(topic_id: str, number: int) -> bytes:
    """Return a partition's parts of a digest: all that its records lead to begins with them."""
    return _prefixed(topic_id) + _prefixed(number)


_ORDINALS = tuple(map(_prefixed, range(64)))
_SIZES = tuple(size.to_bytes(4, "big") for size in range(32))


def task_id(tenant: str, agent: str, source: str, event_id: str) -> str:
    """Return a task's id: the same for the same event, whatever carried it."""
    return digest(tenant, agent, source, event_id).hex()


def in_life(own: str, life: int) -> str:
    """Return the id of a message that says which run of its id it is from: that run's `life`."""
    return f"{own}/{life}"


def life_of(own: str) -> str:
    """Return which run of its id a message is from; empty if its id does not say."""
    return own.partition("/")[2]


class RunId(Frozen):
    """A run's id is its address: the agent, its inbox partition, the task."""

    agent: str
    partition: int
    task: str

    def __str__(self) -> str:
        return f"{self.agent}.{self.partition}.{self.task}"

    @staticmethod
    @functools.lru_cache(maxsize=16_384)
    def parse(text: str) -> RunId | None:
        """Return the parts of a well-formed run id, else `None`; each turn of a run asks."""
        parts = text.split(".")
        if len(parts) != 3 or not parts[1].isdecimal() or not parts[0] or not parts[2]:  # noqa: PLR2004 - agent, partition, task
            return None
        return RunId(parts[0], int(parts[1]), parts[2])


class Address(Frozen):
    """Where a message goes; a partition is named only by an id that carries it."""

    topic: str
    key: str
    partition: int | None = None


class Meta(Frozen, kw_only=True):
    """Who, for whom and because of what; copied to every consequence.

    Args:
        id: The message's own id (`ce_id`).
        tenant: Whose it is.
        correlation_id: The task's `ce_id`, the same on every message it leads to.
        causation_id: Id of the message that caused this one.
        actor: The person or service that asked, where one is known.
        traceparent: W3C trace context as bytes; empty if there is none.
        deadline_ms: When the task stops being wanted; `None` for never.
        carried: Headers taken over as they came: `ce_subject ce_time tracestate baggage`.
    """

    id: str
    tenant: str
    correlation_id: str = ""
    causation_id: str = ""
    actor: str = ""
    traceparent: bytes = b""
    deadline_ms: int | None = None
    carried: tuple[Header, ...] = ()


class Position(Frozen):
    """A place in one topic's one life."""

    topic_id: str
    topic: str
    number: int
    offset: int

    def derive(self, ordinal: int, *, size: int = 16) -> bytes:
        """Return the same id each time the turn is taken; another for a recreated topic."""
        offset = b"%d" % self.offset
        own = _ORDINALS[ordinal] if 0 <= ordinal < len(_ORDINALS) else _prefixed(ordinal)
        data = b"%b%b%b%b" % (_place(self.topic_id, self.number), _SIZES[len(offset)], offset, own)
        return hashlib.blake2b(data, digest_size=size).digest()

    @property
    def span_id(self) -> bytes:
        """The id of the span that the turn here is, should its trace be sampled: 8 bytes."""
        return self.derive(-1, size=8)
