"""The deciding loop: turns, batches, refusals, lost claims, timers, against a log that does as told."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import threading

import pytest

from headwater.contracts.messages import Control, Wake
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Timer
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Key, Meta
from headwater.errors import PoisonError, SettingsError, TransientError, WorkRefusedError
from headwater.log.port import Claim, Poll
from headwater.runtime import restoring
from headwater.runtime.deciding import Deciding
from headwater.runtime.pace import Pace
from headwater.runtime.restoring import Inline, Restorer
from headwater.runtime.table import Table

INBOX = Partition("in", 0)
STATE = "state"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    name: str
    total: int

    @property
    def key(self) -> Key:
        return (self.name,)


TYPES = {kind.__name__: kind for kind in (Sum, Control, Wake, Timer)}


class Json:
    """A codec for the few types of these tests."""

    def encode(self, value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, Timer):
            fields["meta"] = None
        return json.dumps([type(value).__name__, fields], default=lambda b: b.decode()).encode()

    def decode(self, data):
        if data == b"?":
            raise PoisonError("undecodable", "these bytes are no message")
        name, fields = json.loads(data)
        if "value" in fields:
            fields["value"] = fields["value"].encode()
        if name in {"Timer", "Wake"}:
            fields["name"] = tuple(fields["name"])
        if name == "Timer":
            fields["meta"] = Meta(id="timer", tenant="t")
        return TYPES[name](**fields)

    def field(self, kind, name):
        return lambda data: getattr(self.decode(data), name)


class Adder:
    """Adds what comes; `away` waits, `bad` is poison, `later` sets a timer, `wide` writes too much."""

    name = "adder"

    def __init__(self):
        self.away = False
        self.forgotten = []
        self.refusals = []
        self.refused_messages = []

    def react(self, turn, message):
        if isinstance(message, Wake):
            turn.send(Control(target="woke", verb="signal"), Address("out", "k"))
            return
        if message.name == "away" and self.away:
            raise TransientError("the registry is away")
        row = turn.get(Sum, "all") or Sum(name="all", total=0)
        turn.put(dataclasses.replace(row, total=row.total + 1))
        turn.send(
            Control(target=message.target, verb="signal", value=message.value), Address("out", "k")
        )
        if message.name == "bad":
            raise PoisonError("bad", "no")
        if message.name == "later":
            turn.put(Timer(name=("t",), due_ms=turn.now_ms + 100, meta=turn.meta))

    def refused(self, turn, record, message, error):
        self.refusals.append(error.code)
        self.refused_messages.append(message)

    def forget(self, partition):
        self.forgotten.append(partition)


class Script:
    """An owner and a log in one: it delivers what it has, and commits as it is told."""

    def __init__(self):
        self.records: list[Record] = []
        self.delivered = 0
        self.claim = Claim(INBOX, 1)
        self.news = Poll(gained=frozenset({self.claim}))
        self.written: list[Draft] = []
        self.offset = 0
        self.metadata = ""
        self.verdict = None
        self.paused = True
        self.now_ms = 1_000
        self.waits = []
        self.closed = False
        self.commits = []

    def put(self, name="", *, value=b"", raw=None, key=b"k"):
        offset = len(self.records)
        message = Control(target=f"m{offset}", verb="signal", name=name, value=value)
        self.records.append(
            Record(
                partition=INBOX, offset=offset, time_ms=self.now_ms, key=key,
                value=raw if raw is not None else Json().encode(message),
            )
        )  # fmt: skip

    def poll(self, *, records_max, wait_ms):
        self.waits.append(wait_ms)
        news, self.news = self.news, Poll()
        if news.gained or news.lost:
            return news
        if self.paused:
            return Poll()
        found = self.records[self.delivered : self.delivered + records_max]
        self.delivered += len(found)
        return Poll(records=[(self.claim, record) for record in found])

    def pause(self, claims):
        self.paused = True

    def resume(self, claims):
        self.paused = False
        for offset in claims.values():
            if offset is not None:
                self.delivered = offset

    def lose(self):
        """Take the claim away and give it back with another epoch."""
        old, self.claim = self.claim, Claim(INBOX, self.claim.epoch + 1)
        self.news = Poll(lost=frozenset({old}), gained=frozenset({self.claim}))
        self.paused = True

    def commit(self, work):
        self.commits.append([len(one.drafts) for one in work])
        if any(
            b"unwritable" in (draft.value or b"") and draft.topic != "q"
            for one in work
            for draft in one.drafts
        ):
            raise WorkRefusedError("too large")
        if self.verdict == "unknown":
            self.verdict = None
            self.lose()
            return frozenset()
        for one in work:
            assert one.claim == self.claim
            for draft in one.drafts:
                if draft.topic == INBOX.topic:
                    self.records.append(
                        Record(
                            partition=INBOX,
                            offset=len(self.records),
                            time_ms=self.now_ms,
                            key=draft.key,
                            value=draft.value,
                            headers=draft.headers,
                        )
                    )
                else:
                    self.written.append(draft)
            self.offset, self.metadata = one.next_offset, one.metadata
        return frozenset({self.claim})

    def close(self, *, leave=False):
        self.closed = True

    def topic_id(self, topic):
        return "id"

    def committed(self, group, partition):
        return self.offset, self.metadata

    def read(self, starts):
        rows = [
            Record(
                partition=Partition(STATE, 0), offset=n, time_ms=0, key=draft.key, value=draft.value
            )
            for n, draft in enumerate(self.written)
            if draft.topic == STATE
        ]
        return Rows(rows)

    def outputs(self):
        return [Json().decode(draft.value).target for draft in self.written if draft.topic == "out"]


class Rows:
    def __init__(self, records):
        self.records = records
        self.at_end = not records

    def pairs(self, *, records_max, wait_ms):
        self.at_end = True
        return [record.key for record in self.records], [record.value for record in self.records]

    def next_offset(self, partition):
        return len(self.records)

    def until_now(self):
        pass

    def close(self):
        pass


def build(script, decider, **more):
    executor = more.pop("executor", Inline())
    codec = Json()
    return Deciding(
        log=script,
        owner=script,
        decider=decider,
        envelope=Envelope(codec, source="tests"),
        restorer=Restorer(script, group="g", state=STATE, codec=codec, executor=executor),
        quarantine=lambda record, error: Draft(topic="q", key=record.key, value=record.value),
        state=STATE,
        clock=lambda: script.now_ms,
        **more,
    )


@pytest.fixture
def script():
    return Script()


def total(script):
    rows = [
        Json().decode(draft.value)
        for draft in script.written
        if draft.topic == STATE and draft.value
    ]
    return [row.total for row in rows if isinstance(row, Sum)][-1]


def test_backlog_is_one_transaction(script):
    """Turns grow with the backlog; a row is written once a batch."""
    loop = build(script, Adder())
    for _ in range(3):
        script.put()
    loop.step()
    assert loop.step() == 3
    assert script.commits == [[4]]
    assert total(script) == 3
    assert script.offset == 3


def test_poison_goes_to_quarantine_with_the_offset_and_takes_its_turn_back(script):
    """A refused record leaves neither rows nor messages; the next goes on."""
    decider = Adder()
    loop = build(script, decider)
    script.put()
    script.put("bad")
    script.put(raw=b"?")
    script.put()
    loop.step()
    loop.step()
    assert script.outputs() == ["m0", "m3"]
    assert total(script) == 2
    assert [draft.value for draft in script.written if draft.topic == "q"] == [
        script.records[1].value,
        b"?",
    ]
    assert decider.refusals == ["bad", "undecodable"]


def test_unknown_commit_loses_the_claim_and_is_taken_again(script):
    """Nothing of a commit that came to nothing stays in the table or the decider's cache."""
    decider = Adder()
    loop = build(script, decider)
    script.put()
    loop.step()
    script.verdict = "unknown"
    assert loop.step() == 0
    assert loop.claims == frozenset()
    assert decider.forgotten == [INBOX]
    loop.step()
    loop.step()
    assert script.outputs() == ["m0"]
    assert total(script) == 1
    assert len(Table([Sum(name="all", total=1)])) == 1


def test_claim_kept_after_an_unknown_outcome_would_lose_the_record(script, monkeypatch):
    """Control: an owner that calls a commit good that came to nothing loses what it carried."""
    loop = build(script, Adder())
    script.put()
    loop.step()
    monkeypatch.setattr(script, "commit", lambda work: frozenset({script.claim}))
    loop.step()
    monkeypatch.undo()
    loop.step()
    assert script.outputs() == []
    assert script.offset == 0


def test_rebalance_restores_rows(script):
    """A claim that went and came back reads its rows again."""
    loop = build(script, Adder())
    script.put()
    loop.step()
    loop.step()
    script.lose()
    loop.step()
    script.put()
    loop.step()
    assert total(script) == 2


def test_record_of_a_lost_claim_is_not_taken(script):
    """What was polled for a claim that is gone is dropped with it."""
    loop = build(script, Adder())
    loop.step()
    stale = Claim(INBOX, 0)
    script.put()
    script.news = Poll(
        gained=frozenset(), lost=frozenset({stale}), records=[(stale, script.records[0])]
    )
    loop.step()
    assert script.commits == []


def test_refused_work_is_halved_down_to_the_culprit(script):
    """The record that fails alone is quarantined; all others go through, once."""
    decider = Adder()
    loop = build(script, decider, pace=Pace(records_max=8))
    for n in range(8):
        script.put(value=b"unwritable" if n == 5 else b"")
    loop.step()
    for _ in range(20):
        loop.step()
    assert sorted(script.outputs()) == [f"m{n}" for n in range(8) if n != 5]
    assert [draft.value for draft in script.written if draft.topic == "q"] == [
        script.records[5].value
    ]
    assert decider.refusals == ["unwritable"]
    assert decider.refused_messages[0] is not None
    assert total(script) == 7


def test_a_row_that_cannot_be_encoded_is_its_records_fault_alone(script, monkeypatch):
    """What is remembered is encoded at the commit, after its turn was taken."""
    encode = Json.encode

    def strict(self, value):
        if isinstance(value, Sum) and value.name == "odd":
            raise PoisonError("invalid-value", "half of a surrogate pair")
        return encode(self, value)

    class Odd(Adder):
        def react(self, turn, message):
            super().react(turn, message)
            if message.name == "odd":
                turn.put(Sum(name="odd", total=1))

    monkeypatch.setattr(Json, "encode", strict)
    decider = Odd()
    loop = build(script, decider, pace=Pace(records_max=4))
    for name in ("", "odd", ""):
        script.put(name)
    for _ in range(10):
        loop.step()
    assert script.outputs() == ["m0", "m2"]
    assert decider.refusals == ["unwritable"]
    assert script.offset == 3


def test_culprit_whose_quarantine_is_refused_stops_the_process(script, monkeypatch):
    """A record is quarantined or the worker stops; it is never dropped."""
    loop = build(script, Adder(), pace=Pace(records_max=1))
    script.put(value=b"unwritable")

    def refuse(work):
        raise WorkRefusedError("no")

    monkeypatch.setattr(script, "commit", refuse)
    for _ in range(3):
        loop.step()
    with pytest.raises(WorkRefusedError):
        loop.step()


def test_culprit_that_cannot_be_kept_is_refused_once_more(script, monkeypatch):
    """What a decider keeps of a record that it refuses may be what the log refuses: then it keeps nothing."""
    decider = Adder()
    loop = build(script, decider, pace=Pace(records_max=1))
    commit, refused = script.commit, []

    def refuse_twice(work):
        if len(refused) < 2:
            refused.append(work)
            raise WorkRefusedError("too large")
        return commit(work)

    monkeypatch.setattr(script, "commit", refuse_twice)
    for n in range(2):
        script.put(value=b"unwritable" if n == 1 else b"")
    for _ in range(8):
        loop.step()
    assert decider.refusals == ["unwritable", "unkeepable", "unwritable"]
    assert [draft.topic for draft in script.written if draft.topic == "q"] == ["q", "q"]
    assert script.offset == 2


def test_wake_that_cannot_be_written_stops_the_process(script, monkeypatch):
    """There is no record to blame."""
    loop = build(script, Adder())
    script.put("later")
    loop.step()
    loop.step()

    def refuse(work):
        raise WorkRefusedError("no")

    monkeypatch.setattr(script, "commit", refuse)
    script.now_ms += 100
    with pytest.raises(WorkRefusedError):
        loop.step()


def test_something_away_parks_only_that_partition_and_is_said_once(script, caplog):
    """A transient error waits with backoff; the record is taken when it is over."""
    decider = Adder()
    decider.away = True
    loop = build(script, decider, pace=Pace(retry_ms_min=100, retry_ms_max=150))
    script.put()
    script.put("away")
    script.put()
    loop.step()
    assert loop.step() == 1
    assert loop.backlog() == 2
    assert script.paused
    assert loop.step(wait_ms=1_000) == 0
    assert script.waits[-1] == 100
    script.now_ms += 100
    loop.step()
    assert caplog.text.count("registry is away") == 1
    assert script.paused
    decider.away = False
    script.now_ms += 150
    loop.step()
    assert script.outputs() == ["m0", "m1", "m2"]
    assert not script.paused


def test_due_timer_is_answered_once_with_a_wake(script):
    """The owner's clock suggests; the wake comes back through the inbox and takes the timer away."""
    loop = build(script, Adder())
    script.put("later")
    loop.step()
    loop.step()
    assert loop.next_ms() == script.now_ms + 100
    loop.step(wait_ms=1_000)
    assert script.waits[-1] == 100
    script.now_ms += 100
    loop.step()
    loop.step()
    loop.step()
    assert script.outputs() == ["m0", "woke"]
    assert loop.next_ms() is None


def test_early_wake_is_armed_again(script):
    """A wake that the log stamped before its due time makes no turn."""
    loop = build(script, Adder())
    script.put("later")
    loop.step()
    loop.step()
    due = loop.next_ms()
    clock, script.now_ms = script.now_ms, due
    real = script.commit

    def skewed(work):
        script.now_ms = clock
        try:
            return real(work)
        finally:
            script.now_ms = due

    script.commit = skewed
    loop.step()
    script.commit = real
    loop.step()
    assert script.outputs() == ["m0"]
    script.now_ms += 10
    loop.step()
    loop.step()
    assert script.outputs() == ["m0", "woke"]


def test_wake_without_its_timer_does_nothing(script):
    """A second wake, after a crash, finds no timer."""
    loop = build(script, Adder())
    script.put(raw=Json().encode(Wake(name=("gone",), due_ms=1)))
    loop.step()
    loop.step()
    assert script.outputs() == []
    assert script.offset == 1


def test_timers_due_survive_a_refused_batch(script):
    """Timers given out in a batch that the log refused are given out again."""
    loop = build(script, Adder())
    script.put("later")
    loop.step()
    loop.step()
    script.now_ms += 100
    script.put(value=b"unwritable")
    for _ in range(6):
        loop.step()
    assert script.outputs() == ["m0", "woke"]


def test_gained_partitions_wait_for_their_restore_while_others_go_on(script):
    """Restores happen off the loop's thread."""

    class Later(concurrent.futures.Executor):
        def __init__(self):
            self.jobs = []

        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            self.jobs.append(lambda: future.set_result(fn(*args, **kwargs)))
            return future

    executor = Later()
    loop = build(script, Adder(), executor=executor)
    script.put()
    loop.step(wait_ms=1_000)
    assert loop.restoring == 1
    loop.step(wait_ms=1_000)
    assert script.waits[-1] == 10
    assert loop.claims == frozenset()
    for job in executor.jobs:
        job()
    loop.step()
    assert loop.claims == {script.claim}
    loop.step()
    assert script.outputs() == ["m0"]


def test_a_restored_partition_goes_on_while_its_timers_are_read(script, monkeypatch):
    """Its messages need not wait for that; its timers are due as soon as they are known."""
    gate, arm = threading.Event(), restoring.armed
    loop = build(script, Adder())
    script.put("later")
    loop.step()
    loop.step()
    script.now_ms += 100
    script.lose()
    monkeypatch.setattr(restoring, "armed", lambda dues: arm(dues) if gate.wait(60) else None)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        loop = build(script, Adder(), executor=executor)
        script.put()
        while not script.outputs()[1:]:
            loop.step()
        assert script.outputs() == ["m0", "m1"]
        assert loop.restoring == 1
        assert loop.next_ms() is None
        loop.step(wait_ms=1_000)
        assert script.waits[-1] == 10
        gate.set()
    loop.step()
    assert loop.restoring == 0
    loop.step()
    assert script.outputs() == ["m0", "m1", "woke"]


def test_timers_that_cannot_be_read_stop_the_loop(script, monkeypatch):
    """A partition that went on without its timers would keep some runs waiting for ever."""

    def broken(dues):
        raise RuntimeError("a bug")

    monkeypatch.setattr(restoring, "armed", broken)
    loop = build(script, Adder())
    with pytest.raises(RuntimeError, match="a bug"):
        loop.step()


def test_restore_that_fails_stops_the_loop(script, monkeypatch):
    """Missing offsets are never guessed."""

    def missing(group, partition):
        raise SettingsError("no offsets: topics apply")

    monkeypatch.setattr(script, "committed", missing)
    loop = build(script, Adder())
    with pytest.raises(SettingsError, match="topics apply"):
        loop.step()


def test_run_ends_when_told_and_closes(script):
    """What was taken is committed; the membership ends."""
    decider = Adder()
    loop = build(script, decider)
    script.put()
    stop = threading.Event()
    seen = []

    class Watching:
        def committed(self, name, taken, *, seconds):
            seen.extend(one.at.offset for one in taken)
            stop.set()

    loop = build(script, decider, observer=Watching())
    loop.run(stop)
    assert seen == [0]
    assert script.closed
    assert decider.forgotten == [INBOX]


def test_slow_turn_is_named(script, caplog):
    """Users' code holds the whole batch up, so whoever is slow is named."""
    loop = build(script, Adder(), pace=Pace(slow_turn_ms=-1))
    script.put()
    loop.step()
    loop.step()
    assert "holds the whole batch up" in caplog.text


def test_batch_ends_after_its_time(script):
    """A batch commits what is done; the rest follows."""
    loop = build(script, Adder(), pace=Pace(batch_ms_max=0))
    for _ in range(3):
        script.put()
    loop.step()
    loop.step()
    assert loop.backlog() == 2
    for _ in range(3):
        loop.step()
    assert script.outputs() == ["m0", "m1", "m2"]


def test_decider_without_rows_writes_messages_alone(script):
    """No state topic: nothing is restored, nothing but messages is written."""
    codec = Json()

    class Relay(Adder):
        def react(self, turn, message):
            turn.send(Control(target=message.target, verb="signal"), Address("out", "k"))

    loop = Deciding(
        log=script,
        owner=script,
        decider=Relay(),
        envelope=Envelope(codec, source="tests"),
        restorer=Restorer(script, group="g", state=None, codec=codec, executor=Inline()),
        quarantine=lambda record, error: Draft(topic="q"),
        state=None,
        clock=lambda: script.now_ms,
    )
    script.put()
    loop.step()
    loop.step()
    assert [draft.topic for draft in script.written] == ["out"]


def test_two_records_that_cannot_be_written_are_both_quarantined(script):
    """A culprit remembered from an earlier claim does not hide a second one."""
    decider = Adder()
    loop = build(script, decider, pace=Pace(records_max=8))
    for n in range(8):
        script.put(value=b"unwritable" if n in {2, 3} else b"")
    loop.step()
    for _ in range(30):
        loop.step()
    assert sorted(script.outputs()) == [f"m{n}" for n in range(8) if n not in {2, 3}]
    assert decider.refusals == ["unwritable", "unwritable"]
