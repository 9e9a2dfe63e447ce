"""What admission remembers: tasks seen, tasks held, slots open."""

from __future__ import annotations

import dataclasses

from headwater.contracts.messages import Admit, Control, Header, Reopen
from headwater.core.messages import Key, Meta


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A task that was admitted or held, for as long as its like is dropped.

    Args:
        tenant: Whose.
        agent: Whose inbox.
        task_id: The task.
        digest: Of its datum; empty once it was refused while it was held, so that it may come again.
        run: Its run id.
        queued: Number of its `Queued` row while it is held, else -1.
        until: Bucket of its end, if it came again after its `Expiry` was filed; that then goes on to there.
    """

    tenant: str
    task_id: str
    agent: str
    digest: bytes
    run: str = ""
    queued: int = -1
    until: int = 0

    @property
    def key(self) -> Key:
        """Filed by task; the id is made of tenant and agent."""
        return (self.tenant, self.task_id)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """A `Seen` row's end, filed by its time bucket, so that one timer ends many."""

    bucket: int
    tenant: str
    task_id: str

    @property
    def key(self) -> Key:
        """Filed by bucket."""
        return (self.bucket, self.tenant, self.task_id)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent a word that is kept: it goes on in their name and for their time, not in another's."""

    correlation_id: str
    actor: str
    traceparent: bytes
    deadline_ms: int | None
    carried: tuple[Header, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A task, or a failed run to be resumed, held because its tenant has no slot free.

    Args:
        tenant: Whose.
        seq: Its place in the queue.
        wanted: What waits.
        paused: Whether it is to wait though a slot be free.
        controls: What came for it meanwhile.
        senders: Who sent the last of these; older code kept nobody.
    """

    tenant: str
    seq: int
    wanted: Admit | Reopen
    id: str
    correlation_id: str
    actor: str
    traceparent: bytes
    deadline_ms: int | None
    carried: tuple[Header, ...]
    paused: bool = False
    controls: tuple[Control, ...] = ()
    senders: tuple[Sender, ...] = ()

    @property
    def key(self) -> Key:
        """Filed by tenant, in order."""
        return (self.tenant, self.seq)

    @classmethod
    def of(cls, meta: Meta, wanted: Admit | Reopen, seq: int) -> Queued:
        """Return the row of what came with a meta, which is kept beside it."""
        return cls(
            tenant=meta.tenant,
            seq=seq,
            wanted=wanted,
            id=meta.id,
            correlation_id=meta.correlation_id,
            actor=meta.actor,
            traceparent=meta.traceparent,
            deadline_ms=meta.deadline_ms,
            carried=meta.carried,
        )

    def keep(self, control: Control, meta: Meta) -> Queued:
        """Return the row with one more word, and who sent it."""
        sender = Sender(
            correlation_id=meta.correlation_id,
            actor=meta.actor,
            traceparent=meta.traceparent,
            deadline_ms=meta.deadline_ms,
            carried=meta.carried,
        )
        controls, senders = (*self.controls, control), (*self.senders, sender)
        return dataclasses.replace(self, controls=controls, senders=senders)

    def words(self) -> list[tuple[Control, Meta]]:
        """Return what came for it meanwhile, in order, and for whom each speaks: for nobody, if unknown."""
        nobody = Meta(id="", tenant=self.tenant, correlation_id=self.correlation_id)
        unknown = len(self.controls) - len(self.senders)
        metas = [nobody] * unknown + [self._of(sender) for sender in self.senders]
        return list(zip(self.controls, metas, strict=True))

    def _of(self, sender: Sender) -> Meta:
        return Meta(
            id="",
            tenant=self.tenant,
            correlation_id=sender.correlation_id,
            actor=sender.actor,
            traceparent=sender.traceparent,
            deadline_ms=sender.deadline_ms,
            carried=sender.carried,
        )

    def meta(self) -> Meta:
        """Return the task's own meta."""
        return Meta(
            id=self.id,
            tenant=self.tenant,
            correlation_id=self.correlation_id,
            actor=self.actor,
            traceparent=self.traceparent,
            deadline_ms=self.deadline_ms,
            carried=self.carried,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reopening:
    """A failed run whose resume waits for a slot."""

    tenant: str
    run: str

    @property
    def key(self) -> Key:
        """Filed by tenant."""
        return (self.tenant, self.run)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An open run of a tenant.

    Args:
        tenant: Whose.
        slot: Its name, the run's id.
        asked: Ids of the words by which resumes that found it taken went back to their run.
    """

    tenant: str
    slot: str
    asked: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Filed by tenant."""
        return (self.tenant, self.slot)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant's counts: open slots, and the number of its next held task."""

    tenant: str
    slots: int = 0
    queued: int = 0
    queued_next: int = 0

    @property
    def key(self) -> Key:
        """Filed by tenant."""
        return (self.tenant,)


KINDS = (Seen, Expiry, Queued, Reopening, Slot, Tenant)
