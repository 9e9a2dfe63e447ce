"""Patience: what nobody waits for shares a transaction with what comes next, and waits for a bounded time."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.runtime.test_deciding import Adder, Script, build, total

from headwater.contracts.messages import Control, Wake
from headwater.core.envelope import kind_header
from headwater.runtime import patience
from headwater.runtime.pace import Pace
from headwater.runtime.patience import Patient

WAIT_MS = 10


class Kinds(Script):
    """Records say in their headers what they are."""

    def put(self, name="", *, kind=Control, **more):
        super().put(name, **more)
        headers = (kind_header(kind), ("ce_tenantid", b"t"), *more.pop("headers", ()))
        self.records[-1] = dataclasses.replace(self.records[-1], headers=headers)


@pytest.fixture
def script():
    return Kinds()


def patiently(script, *, when=lambda state, meta: True, wait_ms=WAIT_MS):
    loop = build(
        script,
        Adder(),
        patient=Patient(kind=Control, when=when),
        pace=Pace(patience_ms=wait_ms),
    )
    loop.step()
    return loop


def test_what_may_wait_shares_the_transaction_of_what_may_not(script):
    """One transaction instead of two, with both in their order."""
    loop = patiently(script)
    script.put()
    assert loop.step() == 0
    assert loop.backlog() == 1
    script.put(kind=Wake)
    assert loop.step() == 2
    assert len(script.commits) == 1
    assert script.outputs() == ["m0", "m1"]


def test_it_waits_no_longer_than_it_may(script):
    """A slot is given back all the same; what comes meanwhile does not put that off."""
    loop = patiently(script)
    script.put()
    assert loop.step(200) == 0
    script.now_ms += 6
    script.put()
    assert loop.step(200) == 0
    assert script.waits[-1] == WAIT_MS - 6
    script.now_ms += 4
    assert loop.step(200) == 2
    assert (total(script), script.offset) == (2, 2)
    assert script.waits[-1] == 0
    script.put()
    assert loop.step() == 0, "the next has as long"


def test_control_without_a_bound_it_waits_for_ever(script, monkeypatch):
    """The same time, and a wait that never ends."""
    monkeypatch.setattr(patience.Patience, "left_ms", lambda self, now_ms: 1)
    loop = patiently(script)
    script.put()
    for _ in range(5):
        script.now_ms += WAIT_MS
        assert loop.step(200) == 0


def test_a_clock_that_is_put_back_ends_the_wait(script):
    """Otherwise it would last until that clock has caught up."""
    loop = patiently(script)
    script.put()
    assert loop.step() == 0
    script.now_ms -= 500
    assert loop.step() == 1


def test_without_patience_nothing_waits(script):
    """0 turns it off."""
    loop = patiently(script, wait_ms=0)
    script.put()
    assert loop.step() == 1


@pytest.mark.parametrize("waits", [True, False])
def test_what_somebody_waits_for_is_taken_at_once(script, waits):
    """The rows tell, and the meta whose."""
    asked = []

    def when(state, meta):
        asked.append((state, meta.tenant))
        return waits

    loop = patiently(script, when=when)
    script.put()
    assert loop.step() == (0 if waits else 1)
    assert [tenant for _, tenant in asked] == ["t"]


def test_many_records_have_a_transaction_of_their_own(script):
    """They are looked at again and again while they wait."""
    loop = patiently(script)
    for _ in range(patience.RECORDS_MAX):
        script.put()
    assert loop.step() == 0
    script.put()
    assert loop.step() == patience.RECORDS_MAX + 1


def test_what_cannot_be_read_is_refused_at_once(script):
    """It waits for nothing."""
    loop = patiently(script)
    script.put()
    record = script.records[-1]
    headers = (*record.headers, ("ce_deadline", b"soon"))
    script.records[-1] = dataclasses.replace(record, headers=headers)
    assert loop.step() == 1
