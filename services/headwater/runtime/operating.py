"""Operating: what operators want done to kept records, carried out beside everything else."""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from headwater.contracts.messages import Control, Operation, Resume
from headwater.contracts.quarantine import Reason, reason
from headwater.contracts.records import Draft, Record
from headwater.contracts.replays import Anew, Skipped, back, outrun
from headwater.contracts.topics import Names
from headwater.contracts.wanted import Wanted
from headwater.core.decider import Sent
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, digest
from headwater.errors import HeadwaterError, SettingsError
from headwater.log.port import Log
from headwater.runtime.replaying import Ledger, Make, Order, Progress, Replaying, id_of

logger = logging.getLogger(__name__)

KEPT_MAX = 100
"""Operations that are remembered after their end."""
AT_ONCE_MAX = 4
_NO = "headwater.errors.Denied"
_AGAIN_NO = (
    "it failed on a person's no, or on nobody's yes, and a resume delivers that again: replay it to ask "
    "anew, or have the agent take a no and say --despite-no"
)

_OF_THE_RUN = frozenset({"resume", "discard"})
"""A resume names its attempt, and the run says what came of these; a replay is a run beside it."""

Verb = Literal["replay", "discard", "resume"]
State = Literal["running", "done", "failed", "stopped"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants.

    Args:
        verb: What is to be done.
        letters: Whether to dead letters of runs; else to quarantined or foreign records.
        topics: Where they are kept.
        wanted: Which.
        actor: Who wants it.
        reason: Why.
        to: Where replayed records go instead of where they came from.
        rate: Most records a second; 0 for as many as go.
        repeat_writes: Whether calls that changed the world may be made again.
        despite_no: Whether runs are resumed, too, that failed on a person's no: it is delivered again.
        again: Whether records are meant, too, to which something was done before.
        dry_run: Whether nothing is to be written.
        resume: The terms, where runs are resumed.
        value: Instead of the one record's own value: an edit.
        original: The value it replaces.
        name: Names the operation; the same name of the same tenant goes on where it was. Empty: made
            of all the rest.
    """

    verb: Verb
    letters: bool
    topics: tuple[str, ...]
    wanted: Wanted
    actor: str = ""
    reason: str = ""
    to: str = ""
    rate: float = 0.0
    repeat_writes: bool = False
    despite_no: bool = False
    again: bool = False
    dry_run: bool = False
    resume: Resume | None = None
    value: bytes | None = None
    original: bytes | None = None
    name: str = ""

    @property
    def id(self) -> str:
        """The operation's id: the same for the same wish, whoever has it and however fast."""
        wanted = self.wanted
        if self.name:
            return digest("operation", wanted.tenant, self.name, size=8).hex()
        places = sorted(f"{place}@{offset}" for place, offset in wanted.places)
        filters = (wanted.source, wanted.tenant, wanted.error, wanted.since_ms)
        return digest(
            self.verb, *self.topics, "", *places, "", *sorted(wanted.runs), "", *filters,
            self.to, int(self.repeat_writes), int(self.again), self.value or b"", size=8,
        ).hex()  # fmt: skip


@dataclasses.dataclass(slots=True, kw_only=True)
class _Job:
    wish: Wish
    progress: Progress
    stop: threading.Event
    state: State = "running"
    error: str = ""
    thread: threading.Thread | None = None


class Operating:
    """Carries wishes out, each in a thread of its own; what it remembers of them is for people.

    Args:
        log: The log.
        ledger: What was done before.
        envelope: Seals notes and words to runs.
        names: Names of the namespace's topics.
        admission: Tenant to the address of its admission inbox.
        group: An operation's id to the name of its group.
        run: A run's id to what is known of it (`views.runs.RunIndex.get`), if anything is.
        clock: Wall clock in milliseconds.
    """

    def __init__(
        self,
        log: Log,
        ledger: Ledger,
        *,
        envelope: Envelope,
        names: Names,
        admission: Callable[[str], Address],
        group: Callable[[str], str],
        run: Callable[[str], Mapping[str, Any] | None],
        clock: Callable[[], int],
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._envelope = envelope
        self._names = names
        self._admission = admission
        self._group = group
        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: collections.OrderedDict[str, _Job] = collections.OrderedDict()

    def begin(self, wish: Wish) -> str:
        """Begin what is wanted, unless it is under way; return the operation's id.

        Raises:
            BusyError: As many as may go at once are under way.
        """
        key = f"{wish.id}-dry" if wish.dry_run else wish.id
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and known.state == "running":
                return key
            running = sum(job.state == "running" for job in self._jobs.values())
            if running >= AT_ONCE_MAX:
                raise BusyError(f"{running} operations are under way: try again when one has ended")
            job = _Job(wish=wish, progress=Progress(), stop=threading.Event())
            self._jobs[key] = job
            self._jobs.move_to_end(key)
            while len(self._jobs) > KEPT_MAX:
                oldest = next(k for k, of in self._jobs.items() if of.state != "running")
                del self._jobs[oldest]
        thread = threading.Thread(target=self._work, args=(job,), name="operating", daemon=True)
        job.thread = thread
        thread.start()
        return key

    def state(self, id: str) -> dict[str, Any] | None:  # noqa: A002 - what it is
        """Return how far an operation is; `None` if this process does not know it."""
        job = self._jobs.get(id)
        if job is None:
            return None
        progress = job.progress
        return {
            "operation": id,
            "action": job.wish.verb,
            "state": job.state,
            "dry_run": job.wish.dry_run,
            "tenant": job.wish.wanted.tenant,
            "actor": job.wish.actor,
            "done": progress.done,
            "skipped": dict(progress.skipped),
            "reasons": [{"id": of, "why": why} for of, why in [*progress.reasons]],
            "looked": progress.looked,
            "total": progress.total,
            "error": job.error,
        }

    def join(self, id: str, *, timeout_s: float = 60.0) -> None:  # noqa: A002 - what it is
        """Wait until an operation has ended."""
        job = self._jobs[id]
        assert job.thread is not None, "it was begun"
        job.thread.join(timeout_s)

    def close(self) -> None:
        """Stop what is under way; begun again, it goes on where it was."""
        for job in [*self._jobs.values()]:
            job.stop.set()
        for job in [*self._jobs.values()]:
            if job.thread is not None:
                job.thread.join(timeout=30)

    def _work(self, job: _Job) -> None:
        try:
            for topic in job.wish.topics:
                self._one(job, topic)
        except HeadwaterError as error:
            job.error = str(error)
            job.state = "failed"
        except Exception as error:
            logger.exception("an operation broke")
            job.error = f"{type(error).__name__}: {error}"
            job.state = "failed"
        else:
            job.state = "stopped" if job.stop.is_set() else "done"

    def _one(self, job: _Job, topic: str) -> None:
        wish = job.wish
        wanted = wish.wanted.within(topic)
        if wanted is None:
            return
        try:
            self._log.partitions(topic)
        except SettingsError:
            if len(wish.topics) == 1:
                raise
            return  # no record of its kind can be in a topic that is not there
        order = self._order(wish, wanted, topic)
        replaying = Replaying(
            self._log,
            order,
            ledger=self._ledger,
            note=self._note,
            group=self._group(wish.id),
            writer=self._group(topic),
            clock=self._clock,
            progress=job.progress,
        )
        if wish.dry_run:
            replaying.preview(job.stop)
        else:
            replaying.run(job.stop)

    def _order(self, wish: Wish, wanted: Wanted, topic: str) -> Order:
        operation = Operation(
            action="edit" if wish.value is not None else wish.verb,
            id=wish.id,
            actor=wish.actor,
            reason=wish.reason,
            at_ms=0,
            to=wish.to,
            repeat_writes=wish.repeat_writes,
            value=wish.value,
            original=wish.original,
        )
        if wish.letters and wish.verb == "replay":
            command = self._names.cmd(topic.split(".")[2])
            anew = Anew(replay=wish.id, topic=command, repeat_writes=wish.repeat_writes)
            whole = wanted.everything and wish.value is None
            filtered: Make = anew if whole else _Filtered(wanted, _alone(anew, wish.value))
        else:
            make = self._words(wish) if wish.letters else self._records(wish)
            filtered = _Filtered(wanted, make)
        return Order(
            operation=operation,
            topic=topic,
            make=filtered,
            offsets=wanted.span(),
            again=wish.again,
            repeats=_OF_THE_RUN if wish.verb == "resume" else frozenset(),
            rate=wish.rate,
            sends=wish.letters or wish.verb == "replay",
        )

    def _records(self, wish: Wish) -> Callable[[Record, Reason], Draft | Skipped]:
        """Return what a quarantined or foreign record leads to."""
        counts, own = _Counts(self._log), wish.id
        commands = self._names.of("cmd", "", 0)[: -len(".v0")]

        def discard(record: Record, why: Reason) -> Draft | Skipped:
            return Draft(topic=record.partition.topic)

        def replay(record: Record, why: Reason) -> Draft | Skipped:
            topic = wish.to or why.source.topic
            if not topic:
                return Skipped(kind="no origin", why="its headers name no topic: say --to TOPIC")
            count = counts.of(topic)
            if not count:
                return Skipped(kind="no topic", why=f"there is no topic {topic}: say --to TOPIC")
            if not wish.again and not wish.to and (skipped := self._outrun(record, why)):
                return skipped
            home = topic == why.source.topic and 0 <= why.source.number < count
            if wish.value is not None:
                record = dataclasses.replace(record, value=wish.value)
            return back(
                record,
                why,
                replay=own,
                topic=topic,
                partition=why.source.number if home else None,
                identity=self._identity(record, why) if topic.startswith(commands) else "",
            )

        return replay if wish.verb == "replay" else discard

    def _outrun(self, record: Record, why: Reason) -> Skipped | None:
        """Return why nobody waits for a killer of processes any more; `None` if somebody may."""
        run = (record.header("ce_runid") or record.key or b"").decode("utf-8", "replace")
        known = self._run(run)
        return outrun(why, run, "" if known is None else str(known["status"]))

    def _identity(self, record: Record, why: Reason) -> str:
        """Return what stands in for a `ce_id`: where the record was first, as intake would have it."""
        place = why.source
        if not place.topic:
            return id_of(record.partition, record.offset)
        try:
            return f"{self._log.topic_id(place.topic)}/{place.number}/{why.offset}"
        except SettingsError:
            return id_of(record.partition, record.offset)

    def _words(self, wish: Wish) -> Callable[[Record, Reason], Draft | Skipped]:
        """Return the word to its run that a dead letter leads to."""
        own = wish.id

        def word(record: Record, why: Reason) -> Draft | Skipped:
            if wrong := self._unfit(wish, why):
                return wrong
            terms = None
            if wish.verb == "resume":
                terms = dataclasses.replace(
                    wish.resume or Resume(), attempt=why.attempt, repeat_writes=wish.repeat_writes
                )
            control = Control(target=why.run, verb=wish.verb, reason=wish.reason, resume=terms)  # type: ignore[arg-type] # a replay is no word
            meta = Meta(
                id=digest(own, why.run, why.attempt).hex(), tenant=why.tenant, actor=wish.actor
            )
            sent = Sent(message=control, to=self._admission(why.tenant), meta=meta)
            return self._envelope.seal(sent)

        return word

    def _unfit(self, wish: Wish, why: Reason) -> Skipped | None:
        """Return why a word to a letter's run would do nothing, or no good; `None` if it may be sent."""
        if not why.run:
            return Skipped(kind="no run", why="it names no run: replay it instead")
        known = self._run(why.run)
        if known is not None and known["status"] != "failed":
            return Skipped(kind="not failed", why=f"its run is {known['status']}")
        if known is not None and known["attempt"] != why.attempt:
            newest = f"attempt {known['attempt']} has failed since, and has a letter of its own"
            return Skipped(kind="an earlier attempt", why=newest)
        if wish.verb != "resume":
            return None
        writes = () if known is None else known["writes"]
        if writes and not wish.repeat_writes:
            return Skipped(kind="writes", why=f"it would repeat writes: {', '.join(writes)}")
        if why.code == _NO and not wish.despite_no:
            return Skipped(kind="a person's no", why=_AGAIN_NO)
        return None

    def _note(self, operation: Operation) -> Draft:
        to = Address(self._names.of("audit", "operators"), operation.id)
        own = digest(operation.id, operation.topic, operation.partition, operation.next_offset)
        meta = Meta(id=own.hex(), tenant="", actor=operation.actor)
        return self._envelope.seal(Sent(message=operation, to=to, meta=meta))


class BusyError(HeadwaterError):
    """As many operations as may go at once are under way."""


def _alone(make: Anew, value: bytes | None) -> Callable[[Record, Reason], Draft | Skipped]:
    def made(record: Record, why: Reason) -> Draft | Skipped:
        return make(record if value is None else dataclasses.replace(record, value=value))

    return made


class _Filtered:
    """What a record leads to, if it is meant."""

    def __init__(self, wanted: Wanted, make: Callable[[Record, Reason], Draft | Skipped]) -> None:
        self._wanted = None if wanted.everything else wanted
        self._make = make

    def __call__(self, record: Record) -> Draft | Skipped | None:
        why = reason(record)
        if self._wanted is not None and not self._wanted.takes(record, why):
            return None
        return self._make(record, why)


class _Counts:
    """How many partitions topics have; 0 for one that is not there."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, int] = {}

    def of(self, topic: str) -> int:
        """Return how many."""
        found = self._known.get(topic)
        if found is None:
            try:
                found = self._log.partitions(topic)
            except SettingsError:
                found = 0
            self._known[topic] = found
        return found
