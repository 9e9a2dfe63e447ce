"""Values by reference in the deciding loop: fetched before turns, put before commits, bounded, parked."""

from __future__ import annotations

import logging
from concurrent.futures import Future

import pytest

from headwater.contracts.messages import Answered, BlobRef, Reply
from headwater.core.blobs import ref_of
from headwater.core.decider import Turn
from headwater.core.messages import Meta, Position
from headwater.errors import BlobLostError, PoisonError, TransientError
from headwater.runtime import deciding, values
from headwater.runtime.pace import Pace
from headwater.runtime.table import Table

from .test_deciding import INBOX, Adder, Json, Script, build

ONE = b"one" * 10


class Slow:
    """A store that answers when it is told to."""

    inline_bytes_max = 10
    bytes_max = 100
    held_bytes_max = 50

    def __init__(self):
        self.gets: list[tuple[str, str, Future[bytes]]] = []
        self.puts: list[tuple[str, bytes, Future[None]]] = []
        self.quick = False

    def put(self, tenant, value):
        future = Future()
        self.puts.append((tenant, value, future))
        if self.quick:
            future.set_result(None)
        return future

    def get(self, tenant, name):
        future = Future()
        self.gets.append((tenant, name, future))
        return future

    @property
    def asked(self):
        return [(tenant, name) for tenant, name, _ in self.gets]


class Reader(Adder):
    """Loads the value that a message names, and sends its length; keeps what it is told to."""

    name = "reader"

    def react(self, turn, message):
        if message.name == "keep":
            ref = turn.keep(message.value)
            message = type(message)(target=ref.name, verb="signal", value=b"")
        elif message.name:
            value = turn.load(BlobRef(name=message.name, size=1))
            message = type(message)(target=value.decode(), verb="signal", value=b"")
        super().react(turn, message)


class Careful(Adder):
    """Refuses everything, and loads the value that a message names to say so."""

    def react(self, turn, message):
        raise PoisonError("bad", "no")

    def refused(self, turn, record, message, error):
        self.refusals.append(turn.load(BlobRef(name=message.name, size=1)))


def opener(record):
    """Read a record of these tests; its tenant is `t`."""
    return Meta(id="m", tenant="t"), Json().decode(record.value)


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def store():
    return Slow()


def loop_of(script, store, decider=None, **more):
    unhurried = Pace(batch_ms_max=60_000)  # a slow machine must not end a batch early
    return build(script, decider or Reader(), opener=opener, store=store, pace=unhurried, **more)


def test_a_turn_waits_for_its_value_and_others_of_the_partition_behind_it(script, store):
    """The record is taken again once what it needs is here, in order; nobody blocks the thread."""
    loop = loop_of(script, store)
    name = ref_of(ONE).name
    script.put()
    script.put(name)
    script.put()
    loop.step()
    assert loop.step() == 1
    assert store.asked == [("t", name)]
    assert loop.step(500) == 0
    assert script.waits[-1] == 2
    store.gets[0][2].set_result(ONE)
    assert loop.step() == 2
    assert script.outputs() == ["m0", ONE.decode(), "m2"]
    assert len(store.gets) == 1


def test_a_value_that_is_here_already_costs_no_round(script, store):
    """What the process remembers is loaded at once."""

    class Quick(Slow):
        def get(self, tenant, name):
            future = super().get(tenant, name)
            future.set_result(ONE)
            return future

    loop = loop_of(script, Quick())
    script.put(ref_of(ONE).name)
    loop.step()
    assert loop.step() == 1
    assert script.outputs() == [ONE.decode()]


def test_a_store_that_is_away_parks_the_partition(script, store):
    """It is asked again later, and nothing is skipped."""
    loop = loop_of(script, store)
    script.put(ref_of(ONE).name)
    loop.step()
    loop.step()
    store.gets[0][2].set_exception(TransientError("the store is away"))
    assert loop.step() == 0
    assert script.paused
    script.now_ms += 1_000
    loop.step()
    store.gets[1][2].set_result(ONE)
    assert loop.step() == 1
    assert script.outputs() == [ONE.decode()]


def test_what_came_is_not_asked_for_again(script, store):
    """Of several values, those that came are kept while another is away."""

    class Both(Reader):
        def react(self, turn, message):
            turn.need(["one", "two"])
            super().react(turn, message)

    loop = loop_of(script, store, Both())
    script.put("one")
    loop.step()
    loop.step()
    store.gets[0][2].set_result(ONE)
    assert loop.step() == 0
    store.gets[1][2].set_exception(TransientError("the store is away"))
    assert loop.step() == 0
    script.now_ms += 1_000
    loop.step()
    assert [name for _, name in store.asked] == ["one", "two", "two"]
    store.gets[2][2].set_result(b"")
    assert loop.step() == 1
    assert script.outputs() == [ONE.decode()]


def test_a_process_without_a_store_parks_and_says_which_setting(script, caplog):
    """Values by reference are no reason to lose or skip anything."""
    loop = loop_of(script, None)
    script.put(ref_of(ONE).name)
    loop.step()
    with caplog.at_level(logging.WARNING):
        assert loop.step() == 0
    assert "set HEADWATER_BLOBS__URL" in caplog.text
    assert script.paused


def test_a_lost_value_is_the_deciders_affair(script, store, caplog):
    """It is told so when it loads; asking again would not help."""

    class Stoic(Reader):
        def react(self, turn, message):
            try:
                super().react(turn, message)
            except BlobLostError as error:
                raise PoisonError("blob-lost", str(error)) from error

    decider = Stoic()
    loop = loop_of(script, store, decider)
    script.put("gone")
    script.put()
    loop.step()
    loop.step()
    store.gets[0][2].set_exception(BlobLostError("gone", "t", "is not there"))
    assert loop.step() == 2
    assert decider.refusals == ["blob-lost"]
    assert "put it back" in caplog.text


def test_a_refusal_may_load_too(script, store):
    """Whatever a decider loads in answer to a refusal is fetched as for any turn."""
    decider = Careful()
    loop = loop_of(script, store, decider)
    script.put("name")
    loop.step()
    loop.step()
    store.gets[0][2].set_result(ONE)
    assert loop.step() == 1
    assert decider.refusals == [ONE]


def test_values_of_the_records_behind_are_fetched_ahead(script, store, monkeypatch):
    """While one waits, the others' values come to where they will be looked for, within a bound."""

    def opened(record):
        meta, message = opener(record)
        if message.value:
            ref = BlobRef(name=message.value.decode(), size=values.AHEAD_BYTES_MAX // 2)
            return meta, Reply(run="r", number=1, attempt="a", outcome=Answered(value=ref))
        return meta, message

    loop = build(script, Reader(), opener=opened, store=store)
    script.put("first")
    script.put(raw=b"?")
    for name in (b"second", b"third", b"fourth"):
        script.put(value=name)
    loop.step()
    loop.step()
    assert [name for _, name in store.asked] == ["first", "second", "third"]


def test_nothing_commits_before_its_values_are_durable(script, store):
    """Whoever reads the reference finds the value."""
    store.quick = True
    order = []
    commit, put = script.commit, store.put

    def committed(work):
        order.append("commit")
        return commit(work)

    def stored(tenant, value):
        order.append("put")
        return put(tenant, value)

    script.commit, store.put = committed, stored
    loop = loop_of(script, store)
    script.put("keep", value=ONE)
    loop.step()
    assert loop.step() == 1
    assert order == ["put", "commit"]
    assert [(tenant, value) for tenant, value, _ in store.puts] == [("t", ONE)]
    assert script.outputs() == [ref_of(ONE).name]


def test_a_batch_whose_values_cannot_be_kept_is_taken_back(script, store, monkeypatch):
    """Nothing of it is written; its records are taken again, with the same names."""
    monkeypatch.setattr(deciding, "PUT_S_MAX", 0.0)
    decider = Reader()
    loop = loop_of(script, store, decider)
    script.put("keep", value=ONE)
    script.put()
    loop.step()
    assert loop.step() == 0
    assert script.commits == []
    assert decider.forgotten == [INBOX]
    assert script.paused
    script.now_ms += 1_000
    store.puts[0][2].set_exception(TransientError("the store is away"))
    store.quick = True
    assert loop.step() == 2
    assert [value for _, value, _ in store.puts] == [ONE, ONE]
    assert script.outputs() == [ref_of(ONE).name, "m1"]


def test_a_batch_holds_no_more_values_than_there_is_room_for(script, store):
    """It commits what it has before it takes more."""
    store.quick = True
    loop = loop_of(script, store)
    for _ in range(4):
        script.put("keep", value=ONE)
    loop.step()
    assert [loop.step(), loop.step()] == [2, 2]


def test_a_store_that_stays_away_is_asked_less_and_less_and_said_once(script, store, caplog):
    """Each time the turns are taken again, and nobody's log is filled."""
    loop = loop_of(script, store)
    script.put("keep", value=ONE)
    loop.step()
    waits = []
    for _ in range(4):
        began_ms = script.now_ms
        refuse(store)
        while not script.paused:
            loop.step()
        while script.paused:
            script.now_ms += 50
            loop._poll(0)
        waits.append(script.now_ms - began_ms)
    assert waits == [100, 200, 400, 800]
    assert caplog.text.count("reader waits on") == 1


def refuse(store):
    """Have the next put refused at once."""

    def put(tenant, value):
        future = Future()
        future.set_exception(TransientError("the store is away"))
        return future

    store.put = put


def test_a_refusal_may_keep_too(script, store):
    """What a decider keeps in answer to a refusal is stored before it commits."""

    class Careful(Adder):
        def react(self, turn, message):
            raise PoisonError("bad", "no")

        def refused(self, turn, record, message, error):
            turn.keep(ONE)

    store.quick = True
    loop = loop_of(script, store, Careful())
    script.put()
    loop.step()
    assert loop.step() == 1
    assert [value for _, value, _ in store.puts] == [ONE]


def test_control_without_the_wait_a_reference_has_no_value(script, store, monkeypatch):
    """A commit that does not wait sends a reference to nothing: the protection is what prevents it."""
    monkeypatch.setattr(values.Puts, "wait", lambda self, until_s: None)
    loop = loop_of(script, store)
    script.put("keep", value=ONE)
    loop.step()
    assert loop.step() == 1
    assert script.outputs() == [ref_of(ONE).name]
    assert not store.puts[0][2].done()


def test_a_put_that_failed_is_no_put(store):
    """A store that says no is as one that says nothing."""
    puts = values.Puts()

    turn = Turn(Table(), at=Position("id", "in", 0, 0), meta=Meta(id="m", tenant="t"), now_ms=0)
    turn.keep(ONE)
    puts.begin(store, turn)
    assert puts
    store.puts[0][2].set_exception(TransientError("the store is away"))
    with pytest.raises(TransientError, match="away"):
        puts.wait(0.0)
