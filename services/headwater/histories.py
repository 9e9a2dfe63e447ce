"""Histories: the journals of runs, read from the log or a file, replayed against today's code.

A history is self-contained: a line that says whose it is, with how it began and every schema that its
bytes were written with, then one line an entry. Values stay as they are, in base64: a call is known
again by the digest of its arguments, and an answer by its bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from headwater.assembly import ROWS, Platform
from headwater.catalogue import AppCatalogue
from headwater.contracts import frames, messages
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.derive import shape_of
from headwater.contracts.messages import Answered, BlobRef
from headwater.core import blobs
from headwater.core.execution import Answer, Raised, Returned, Step
from headwater.core.prices import Prices
from headwater.errors import (
    ConfinementError,
    HeadwaterError,
    LivelockError,
    NonDeterminismError,
    PoisonError,
)
from headwater.layout import places
from headwater.runs import journal
from headwater.runs.rows import Entry, Made, Opened, Run
from headwater.runtime.table import Restore, Table
from headwater.sdk.app import App

FORMAT = 1
_HEAD = 10

State = Literal["equal", "different", "unreadable"]


class HistoryError(HeadwaterError):
    """A file that is no history, or a run that has none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A run's journal.

    Args:
        app: The app's name.
        opened: How it began.
        run: Where it is.
        entries: Its entries, in order.
        schemas: What its bytes were written with, by fingerprint in hexadecimal.
        by_reference: Whether its conversations were kept in a store of blobs.
    """

    app: str
    opened: Opened
    run: Run
    entries: Sequence[Entry]
    schemas: Mapping[str, Any]
    by_reference: bool = False

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self.run.run.split(".", 1)[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a replay came to.

    Args:
        run: Run id.
        state: `equal`: today's code asks for what the journal has. `different`: it does not.
            `unreadable`: it cannot even be begun, or its values cannot be read.
        entries: How many were replayed.
        number: Of the first call that differs; 0 where none does.
        recorded: `kind name` in the journal.
        actual: `kind name` that today's code asks for.
        says: What is wrong, in words.
    """

    run: str
    state: State
    entries: int
    number: int = 0
    recorded: str = ""
    actual: str = ""
    says: str = ""


def tables(platform: Platform, agent: str, partition: int | None = None) -> Iterator[Table]:
    """Yield the rows of an agent's runs, a partition at a time, as the log has them now."""
    for place in places(platform.log, platform.names.state(f"runs.{agent}")):
        if partition is not None and place.number != partition:
            continue
        restore = Restore(platform.codec)
        reader = platform.log.read({place: 0})
        try:
            while not reader.at_end:
                restore.add(*reader.pairs(records_max=500, wait_ms=200))
        finally:
            reader.close()
        yield restore.table()


def of(platform: Platform, table: Table, run: str) -> History | None:
    """Return a run's history, its values in it; `None` if its rows are not here.

    Raises:
        HistoryError: A value is in a store of blobs that is not set.
        BlobLostError, TransientError: The store has no such value, or is away.
    """
    row, opened = table.get(Run, run), table.get(Opened, run)
    if row is None or opened is None:
        return None
    store, tenant = platform.parts.blobs, opened.tenant

    def whole(value: bytes | BlobRef) -> bytes:
        if isinstance(value, bytes):
            return value
        if store is None:
            raise HistoryError(f"{run} has values in a store of blobs: set HEADWATER_BLOBS__URL")
        return store.get(tenant, value.name).result()

    given = opened.start.task
    task = dataclasses.replace(given, value=frames.single(whole(given.value), platform.schemas))
    opened = dataclasses.replace(
        opened, start=dataclasses.replace(opened.start, task=task), task=whole(opened.task)
    )
    row = dataclasses.replace(row, value=whole(row.value))
    entries = [_whole(entry, whole) for entry in table.scan(Entry, run)]
    names = {value[2:_HEAD] for value in _values(opened, row, entries) if _is_single(value)}
    schemas = platform.schemas
    return History(
        app=platform.app.name,
        opened=opened,
        run=row,
        entries=entries,
        schemas={name.hex(): schemas.schema(name) for name in sorted(names) if schemas.knows(name)},
        by_reference=store is not None,
    )


def values(entries: Iterable[Entry]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (kind, name, answer) of every call that a journal has answered."""
    asked: dict[int, Made] = {}
    for entry in entries:
        delivery = entry.delivery
        asked.update((made.number, made) for made in entry.calls)
        if isinstance(delivery, Answer) and isinstance(delivery.outcome, Answered):
            made = asked.get(delivery.number)
            if made is not None:
                yield made.kind, made.name, blobs.inline(delivery.outcome.value)


def dump(history: History) -> Iterator[str]:
    """Yield the lines of a history's file."""
    codec = Codec(Schemas(), (*messages.SHIPPED, *ROWS))
    rows = [shape_of(kind) for kind in (Opened, Run, Entry)]
    shipped = {shape.fingerprint.hex(): shape.schema for shape in rows}
    yield json.dumps(
        {
            "headwater": FORMAT,
            "app": history.app,
            "agent": history.agent,
            "version": history.run.version,
            "run": history.run.run,
            "state": history.run.ending or history.run.state,
            "entries": len(history.entries),
            "by_reference": history.by_reference,
            "opened": _base64(codec.encode(history.opened)),
            "row": _base64(codec.encode(history.run)),
            "schemas": {**shipped, **history.schemas},
        },
        sort_keys=True,
    )
    for entry in history.entries:
        yield json.dumps(
            {
                "seq": entry.seq,
                "time_ms": entry.time_ms,
                "delivery": _said(entry),
                "calls": [f"{made.number} {made.kind} {made.name}" for made in entry.calls],
                "entry": _base64(codec.encode(entry)),
            }
        )


def load(lines: Iterable[str]) -> History:
    """Read a history's file.

    Raises:
        HistoryError: It is none, or was cut short.
    """
    try:
        head, *rest = [json.loads(line) for line in lines if line.strip()]
        if head["headwater"] != FORMAT:
            raise HistoryError(f"a history of format {head['headwater']}; this reads {FORMAT}")
        schemas = Schemas()
        for schema in head["schemas"].values():
            schemas.add(schema)
        codec = Codec(schemas, (*messages.SHIPPED, *ROWS))
        entries = [codec.decode(base64.b64decode(line["entry"])) for line in rest]
        history = History(
            app=head["app"],
            opened=codec.decode(base64.b64decode(head["opened"])),
            run=codec.decode(base64.b64decode(head["row"])),
            entries=entries,
            schemas=head["schemas"],
            by_reference=head["by_reference"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, PoisonError) as error:
        raise HistoryError(
            f"no recorded history ({error}): `headwater runs export RUN > FILE` writes one"
        ) from error
    if len(entries) != head["entries"]:
        raise HistoryError(f"it has {len(entries)} of {head['entries']} entries: export it again")
    return history


def verify(app: App, history: History, *, whole: bool = False, strict: bool = False) -> Verdict:
    """Replay a journal against today's code; nothing it asks for is sent.

    Args:
        app: The app as it is now.
        history: The journal.
        whole: Whether its end counts too. Otherwise a failed run is replayed up to where a resume
            would take it up.
        strict: Whether other arguments of a call that only reads count.
    """
    run, agent = history.run, app.agents.get(history.agent)
    failed = run.ending == "failed" and not whole
    entries = [one for one in history.entries if not failed or not run.cut or one.seq < run.cut]
    verdict = Verdict(run=run.run, state="equal", entries=len(entries))
    if agent is None:
        says = f"this app declares no agent named {history.agent!r}"
        return dataclasses.replace(verdict, state="unreadable", says=says)
    for schema in history.schemas.values():
        app.schemas.add(schema)
    try:
        info = history.opened.info(by_reference=history.by_reference)
        execution = agent.begin(info, blobs.inline(history.opened.input))
    except PoisonError as error:
        return dataclasses.replace(verdict, state="unreadable", says=f"its task: {error}")
    try:
        last = journal.replay(execution, entries, _always if strict else writes(app))
    except NonDeterminismError as error:
        return dataclasses.replace(
            verdict,
            state="different",
            number=error.number,
            recorded=error.recorded,
            actual=error.actual,
            says=f"call {error.number} is recorded as {error.recorded}, but the code now asks for "
            f"{error.actual}",
        )
    except (ConfinementError, LivelockError) as error:
        return dataclasses.replace(verdict, state="different", says=str(error))
    finally:
        execution.close()
    if whole and (says := _other_end(run, last)):
        return dataclasses.replace(verdict, state="different", says=says)
    return verdict


def writes(app: App) -> Callable[[Made], bool]:
    """Return what says whether a call changes the world, as the decider of runs does."""
    catalogue = AppCatalogue(app, Prices())

    def changes(made: Made) -> bool:
        if made.kind != "tool":
            return made.kind == "agent"
        terms = catalogue.tool(made.name)
        return terms is None or terms.safety != "read"

    return changes


def _always(made: Made) -> bool:
    return True


def _other_end(run: Run, last: Step | None) -> str:
    """Say how a replay ended otherwise than its run did; empty if it did not."""
    ended = None if last is None else last.ended
    if run.ending == "completed":
        if isinstance(ended, Returned) and ended.value == run.value:
            return ""
        return f"it completed, and the code now {_end(ended)}"
    if run.ending:
        if isinstance(ended, Raised):
            return "" if ended.cancelled or ended.error == run.error else _raised(run, ended)
        return f"it {run.ending} of {run.error}, and the code now {_end(ended)}"
    return "" if ended is None else f"it was open, and the code now {_end(ended)}"


def _raised(run: Run, ended: Raised) -> str:
    return f"it {run.ending} of {run.error}, and the code now raises {ended.error}"


def _end(ended: Any) -> str:
    if ended is None:
        return "waits"
    if isinstance(ended, Returned):
        return "returns another result"
    return f"raises {ended.error}" if isinstance(ended, Raised) else "continues as another task"


def _values(opened: Opened, run: Run, entries: Sequence[Entry]) -> Iterator[bytes]:
    yield from map(blobs.inline, (opened.start.task.value, opened.task, run.value))
    yield from (value for _, _, value in values(entries))


def _whole(entry: Entry, whole: Callable[[bytes | BlobRef], bytes]) -> Entry:
    delivery = entry.delivery
    if not isinstance(delivery, Answer) or not isinstance(delivery.outcome, Answered):
        return entry
    answered = Answered(value=whole(delivery.outcome.value))
    return dataclasses.replace(entry, delivery=dataclasses.replace(delivery, outcome=answered))


def _is_single(value: bytes) -> bool:
    return value[:2] == frames.SINGLE and len(value) >= _HEAD


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _said(entry: Entry) -> str:
    delivery = entry.delivery
    name = type(delivery).__name__.lower()
    more = getattr(delivery, "number", None) or getattr(delivery, "name", None)
    return f"{name} {more}" if more else name
