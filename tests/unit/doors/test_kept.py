"""Quarantine and dead letters over HTTP: looked at, sent back, resumed, discarded; each once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.unit.doors.test_gateway import Claim, World, run, triage

from headwater.contracts.headers import HEADERS_BYTES_MAX, HEADERS_MAX
from headwater.contracts.quarantine import keep
from headwater.contracts.records import Draft, Partition, Record
from headwater.doors.callers import Caller
from headwater.errors import ProcessKillerError, SettingsError

CMD = "hw.cmd.triage.v1"
QUARANTINE = "hw.quarantine.cmd.triage.v1"
DLQ = "hw.dlq.triage.v1"
AUDIT = "hw.audit.operators.v1"


async def spoil(world: World, *values: bytes, **headers: bytes) -> list[dict[str, Any]]:
    """Have records refused; return what the list says of them, oldest first."""
    for value in values:
        given = {"ce_tenantid": b"t", **headers}
        await world.t.log.append(
            Draft(topic=CMD, key=b"k", value=value, headers=tuple(given.items()), partition=1)
        )
    await world.go_on()
    listed = (await world.http.get("/api/v1/quarantine")).json()["records"]
    return sorted(listed, key=lambda one: one["id"])


async def operate(world: World, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Have an operation done, let what follows happen, and return what came of it."""
    answer = await world.http.post(f"/api/v1/{path}", json=body, **more)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    await asyncio.to_thread(world.operating.join, told["operation"])
    await world.go_on()
    found: dict[str, Any] = (await world.http.get(told["url"], **more)).json()
    return found


def good(text: str = "hello") -> bytes:
    return triage.input.encode(Claim(text=text))


def records(world: World, topic: str) -> list[Record]:
    return world.t.records(topic)


def test_a_record_goes_back_byte_for_byte_with_marks():
    """Key, value, headers and partition as they were; behind them how often it failed, and why."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, b"rubbish", odd=b"\xff")
        found = await operate(world, "quarantine/replay", {"ids": [one["id"]], "reason": "try"})
        assert (found["state"], found["done"], found["skipped"]) == ("done", 1, {})
        first, second = records(world, CMD)
        assert (second.key, second.value) == (first.key, first.value)
        assert second.partition == first.partition
        assert second.headers[:2] == first.headers
        marks = dict(second.headers[2:])
        assert marks["__dlq.errors.delivery.count"] == b"1"
        assert marks["error.type"] == b"wrong-magic"
        assert marks["__replay.of"] == one["id"].encode()
        listed = (await world.http.get("/api/v1/quarantine")).json()["records"]
        assert [(of["deliveries"], of["done"]) for of in listed] == [(2, None), (1, "replay")]
        shown = (await world.http.get(f"/api/v1/quarantine/{one['id']}")).json()
        assert (shown["done"], shown["done_reason"]) == ("replay", "try")

    run(body)


def test_marks_do_not_pile_up():
    """A record that comes back again and again has one set of them, and counts on."""

    async def body(world: World) -> None:
        await spoil(world, b"rubbish")
        for _ in range(3):
            listed = (await world.http.get("/api/v1/quarantine")).json()["records"]
            newest = max(listed, key=lambda of: of["deliveries"])
            await operate(world, "quarantine/replay", {"ids": [newest["id"]]})
        last = records(world, CMD)[-1]
        assert len(last.headers) == len({name for name, _ in last.headers})
        assert last.header("__dlq.errors.delivery.count") == b"3"
        assert last.header("ce_id") == records(world, CMD)[1].header("ce_id")

    run(body)


def test_a_record_without_an_id_keeps_the_identity_of_its_first_place():
    """Replayed twice, under two names, it is one task all the same."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, b"rubbish")
        await operate(world, "quarantine/replay", {"ids": [one["id"]]})
        topic_id = world.t.log.topic_id(CMD)
        assert records(world, CMD)[1].header("ce_id") == f"{topic_id}/1/0".encode()

    run(body)


def test_the_same_replay_twice_is_one():
    """What was replayed is not replayed again, unless somebody says so."""

    async def body(world: World) -> None:
        one, two = await spoil(world, b"rubbish", b"junk")
        await operate(world, "quarantine/replay", {"ids": [one["id"]]})
        again = await operate(world, "quarantine/replay", {"ids": [one["id"], two["id"]]})
        assert (again["done"], again["skipped"]) == (1, {"done before": 1})
        assert [of.value for of in records(world, CMD)] == [b"rubbish", b"junk"] * 2
        forced = await operate(world, "quarantine/replay", {"ids": [one["id"]], "again": True})
        assert forced["done"] == 1
        assert len(records(world, CMD)) == 5

    run(body)


def test_filters_choose_and_a_dry_run_writes_nothing():
    """By class, tenant, agent and time; what would be done is counted first."""

    async def body(world: World) -> None:
        await spoil(world, b"rubbish")
        await spoil(world, good(), ce_tenantid=b"NO")
        for told, count in (
            ({"error": "wrong-magic"}, 1),
            ({"tenant": "t"}, 1),
            ({"agent": "triage"}, 2),
            ({"topic": CMD}, 2),
            ({"topic": QUARANTINE}, 2),
            ({"since_ms": world.t.now_ms + 1}, 0),
            ({"all": True}, 2),
        ):
            found = await operate(world, "quarantine/replay", {**told, "dry_run": True})
            assert (found["done"], found["dry_run"]) == (count, True), told
            if "all" not in told:
                params = {name: str(value) for name, value in told.items()}
                listed = (await world.http.get("/api/v1/quarantine", params=params)).json()
                assert len(listed["records"]) == count, told
        assert len(records(world, CMD)) == 2
        assert records(world, AUDIT) == []

    run(body)


def test_a_discard_leaves_the_record_and_who_and_why():
    """Nothing is deleted; it is shown as discarded, and not replayed by accident."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, b"rubbish")
        told = {"ids": [one["id"]], "reason": "spam"}
        assert (await operate(world, "quarantine/discard", told))["done"] == 1
        shown = (await world.http.get(f"/api/v1/quarantine/{one['id']}")).json()
        assert (shown["done"], shown["done_reason"]) == ("discard", "spam")
        assert (await operate(world, "quarantine/replay", {"all": True}))["done"] == 0
        (note,) = records(world, AUDIT)
        operation = world.t.platform.codec.decode(note.value or b"")
        assert (operation.action, operation.offsets) == ("discard", (0, 0))

    run(body)


def test_an_edited_record_is_taken_and_its_original_kept():
    """The value is given as JSON and encoded by the agent's type; both are in the audit."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, b"rubbish")
        path = f"quarantine/{one['id']}/edit"
        wrong = await world.http.post(f"/api/v1/{path}", json={"value": {"amount": "x"}})
        assert wrong.status_code == 422
        found = await operate(world, path, {"value": {"text": "mended"}, "reason": "a typo"})
        assert found["done"] == 1
        (completed,) = [event for event in world.t.life() if event.status == "completed"]
        assert completed.outcome == b'"t/: mended"'
        (note,) = records(world, AUDIT)
        operation = world.t.platform.codec.decode(note.value or b"")
        assert (operation.action, operation.original) == ("edit", b"rubbish")
        assert operation.value == good("mended")

    run(body)


def test_an_edit_that_changes_nothing_or_has_no_type_is_refused():
    """A replay is what is meant then; and what no agent takes cannot be encoded."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, good(), ce_tenantid=b"NO")
        shown = (await world.http.get(f"/api/v1/quarantine/{one['id']}")).json()
        assert shown["decoded"] == {"text": "hello", "amount": 0}
        path = f"/api/v1/quarantine/{one['id']}/edit"
        same = await world.http.post(path, json={"value": shown["decoded"]})
        assert (same.status_code, "the same" in same.json()["detail"]) == (422, True)
        other = await world.http.post(path, json={"value": 1, "to": "elsewhere"})
        assert (other.status_code, "say --to" in other.json()["detail"]) == (422, True)

    run(body)


def test_a_record_whose_origin_is_not_there_says_so():
    """It is skipped with the reason; `to` names another topic."""

    async def body(world: World) -> None:
        log = world.t.log
        log.create("legacy.dlq", partitions=1)
        spring = (
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", (7).to_bytes(4, "big")),
            ("kafka_dlt-original-offset", (41).to_bytes(8, "big")),
            ("kafka_dlt-exception-message", b"no such order"),
        )
        await log.append(Draft(topic="legacy.dlq", key=b"k", value=good(), headers=spring))
        await log.append(Draft(topic="legacy.dlq", value=b"bare"))
        listed = await world.http.get("/api/v1/quarantine", params={"topic": "legacy.dlq"})
        assert {one["message"] for one in listed.json()["records"]} == {"no such order", ""}
        found = await operate(world, "quarantine/replay", {"topic": "legacy.dlq"})
        assert found["skipped"] == {"no topic": 1, "no origin": 1}
        log.create("orders", partitions=8)
        found = await operate(world, "quarantine/replay", {"topic": "legacy.dlq"})
        assert found["done"] == 1
        (sent,) = records(world, "orders")
        assert (sent.partition.number, sent.value) == (7, good())
        assert not [name for name, _ in sent.headers if name.startswith("kafka_dlt-")]
        to = {"topic": "legacy.dlq", "to": CMD, "again": True}
        assert (await operate(world, "quarantine/replay", to))["done"] == 2
        for typed in ({"topic": "nowhere"}, {"topic": "legacy.dlq", "to": "nowhere"}):
            for verb in ("replay", "discard"):
                refused = await world.http.post(f"/api/v1/quarantine/{verb}", json=typed)
                assert (refused.status_code, "'nowhere'" in refused.text) == (404, True)

    run(body)


async def killer(world: World, topic: str, run: str) -> str:
    """Put a record of a run aside as one that processes die of; return its id in quarantine."""
    place = Partition(topic, 0)
    record = Record(partition=place, offset=0, key=run.encode(), value=b"?", headers=(), time_ms=0)
    kept = keep(record, ProcessKillerError("three died of it alone"), group="hw.runs.triage")
    await world.t.log.append(kept)
    return f"{kept.topic}:0@{len(records(world, kept.topic)) - 1}"


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("inbox.triage", "break", "a resume gives it once more: `headwater runs resume triage."),
        ("inbox.triage", "wait", " is waiting, and waits for it no more"),
        ("req.tool.bank", "wait", "waits for it no more: see `headwater runs show triage."),
        ("cmd.triage", "wait", ""),
        ("inbox.triage", "", ""),
    ],
)
def test_a_killer_that_nobody_waits_for_is_not_sent_back(kind: str, text: str, why: str) -> None:
    """Its run has it, went on, or was told what became of its call; one that never began is sent."""

    async def body(world: World) -> None:
        if text:
            await world.publish({"text": text})
        of = (await world.http.get("/api/v1/runs")).json()["runs"]
        topic = f"hw.{kind}.v1"
        with contextlib.suppress(SettingsError):
            world.t.log.create(topic, partitions=1)
            world.t.log.create(topic.replace("hw.", "hw.quarantine."), partitions=1)
        one = await killer(world, topic, of[0]["run"] if of else "triage.0.new")
        told = {"ids": [one], "reason": "mended", "dry_run": True}
        found = await operate(world, "quarantine/replay", told)
        assert found["done"] == (0 if why else 1), found
        assert "".join(reason["why"] for reason in found["reasons"]).count(why), found
        assert (await operate(world, "quarantine/replay", told | {"again": True}))["done"] == 1

    run(body)


async def broken(world: World, **more: Any) -> dict[str, Any]:
    """Have a run fail; return its dead letter as the list tells it."""
    await world.publish({"text": "break"}, **more)
    listed = (await world.http.get("/api/v1/dlq")).json()["records"]
    found: dict[str, Any] = listed[0]
    return found


async def denied(world: World) -> None:
    """Have a run fail because a person says no."""
    asked = await world.t.start(triage, Claim(text="ask"))
    await world.t.deny(asked, by="eva", reason="too much")
    await world.go_on()


def test_a_dead_letter_is_replayed_as_a_new_run_once():
    """Its id is made of the old run and the replay; what comes back counts on."""

    async def body(world: World) -> None:
        letter = await broken(world, headers={"ce-deadline": "2030-01-01T00:00:00Z"})
        assert (letter["code"], letter["deliveries"]) == ("ValueError", 1)
        found = await operate(world, "dlq/replay", {"ids": [letter["id"]]})
        assert found["done"] == 1
        again = await operate(world, "dlq/replay", {"ids": [letter["id"]]})
        assert again["skipped"] == {"done before": 1}
        failed = [event for event in world.t.life() if event.status == "failed"]
        assert len({event.run for event in failed}) == 2
        listed = (await world.http.get("/api/v1/dlq")).json()["records"]
        assert sorted(one["deliveries"] for one in listed) == [1, 2]
        sent = records(world, CMD)[-1]
        assert [name for name, _ in sent.headers].count("ce_id") == 1
        assert sent.header("ce_deadline") is None

    run(body)


def test_a_record_that_has_all_the_headers_it_may_have_is_replayed_too():
    """What a replay adds, and adds once, is over no limit of its producer's."""
    given = {f"x-{n}": b"?" for n in range(HEADERS_MAX - 1)}
    pad = b"?" * (HEADERS_BYTES_MAX - _size(given) - 3)
    full = given | {"pad": pad, "ce_tenantid": b"t"}

    async def body(world: World) -> None:
        await spoil(world, b"rubbish", good("break"), **full)
        for _ in range(2):
            await operate(world, "quarantine/replay", {"all": True})
            await operate(world, "dlq/replay", {"all": True})
        kept = (await world.http.get("/api/v1/quarantine")).json()["records"]
        letters = (await world.http.get("/api/v1/dlq")).json()["records"]
        assert [one["code"] for one in kept] == ["wrong-magic"] * 3
        assert sorted(one["deliveries"] for one in letters) == [1, 2, 3]
        over = Draft(topic=CMD, key=b"k", value=good(), headers=(*full.items(), ("one", b"more")))
        await world.t.log.append(over)
        await world.go_on()
        kept = (await world.http.get("/api/v1/quarantine")).json()["records"]
        assert kept[0]["code"] == "too-large"

    run(body)


def _size(headers: dict[str, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())


def test_the_same_replay_is_one_task_where_nobody_remembers_it():
    """Another gateway, whose notes are gone: admission drops it, because its id is the same."""

    async def body(world: World) -> None:
        letter = await broken(world)
        for _ in range(2):
            told = {"ids": [letter["id"]], "again": True, "operation": "friday"}
            world.t.platform.ledger.looked = lambda operation, place: 0
            await operate(world, "dlq/replay", told)
        assert len(records(world, CMD)) == 3
        assert len({event.run for event in world.t.life() if event.status == "failed"}) == 2

    run(body)


def test_a_dead_letter_resumes_its_run():
    """By the letter's id or the run's; of a run's letters, only that of its newest attempt counts."""

    async def body(world: World) -> None:
        letter = await broken(world)
        for name in (letter["id"], letter["run"], letter["run"]):
            found = await operate(world, "dlq/resume", {"ids": [name], "add_usd": 1})
            assert found["state"] == "done"
        shown = (await world.http.get(f"/api/v1/runs/{letter['run']}")).json()
        assert shown["attempt"] == 4

    run(body)


def test_a_dead_letter_discards_its_run():
    """The run is gone, and the letter says that it was discarded."""

    async def body(world: World) -> None:
        letter = await broken(world)
        await operate(world, "dlq/discard", {"ids": [letter["run"]], "reason": "a test"})
        shown = (await world.http.get(f"/api/v1/runs/{letter['run']}")).json()
        assert (shown["status"], shown["reason"]) == ("discarded", "a test")
        one = (await world.http.get(f"/api/v1/dlq/{letter['id']}")).json()
        assert (one["done"], one["run"]) == ("discard", letter["run"])

    run(body)


def test_a_dead_letter_that_was_replayed_is_not_resumed_too():
    """Two operators want it to go on: its task would be done twice, unless somebody says --again."""

    async def body(world: World) -> None:
        letter = await broken(world)
        await operate(world, "dlq/replay", {"ids": [letter["id"]]})
        found = await operate(world, "dlq/resume", {"ids": [letter["id"]]})
        assert (found["done"], found["skipped"]) == (0, {"done before": 1})
        meant = await operate(world, "dlq/resume", {"ids": [letter["id"]], "again": True})
        assert meant["done"] == 1

    run(body)


def test_a_word_that_would_do_nothing_is_skipped_and_says_why():
    """A letter of an earlier attempt, and one whose run went on or is gone, count as nothing done."""

    async def body(world: World) -> None:
        first = await broken(world)
        await operate(world, "dlq/resume", {"ids": [first["id"]]})
        for verb in ("resume", "discard"):
            found = await operate(world, f"dlq/{verb}", {"ids": [first["id"]]})
            if verb == "resume":
                assert (found["done"], found["skipped"]) == (0, {"an earlier attempt": 1})
        second = (await world.http.get("/api/v1/dlq")).json()["records"][0]
        assert second["attempt"] == 2
        await operate(world, "dlq/discard", {"ids": [second["id"]]})
        found = await operate(world, "dlq/resume", {"ids": [second["id"]]})
        assert (found["done"], found["skipped"]) == (0, {"not failed": 1})
        assert found["reasons"][0]["why"] == "its run is discarded"

    run(body)


def test_a_resume_after_a_persons_no_has_to_be_meant():
    """The same no is delivered again, so the run fails again and leaves a second letter."""

    async def body(world: World) -> None:
        await denied(world)
        (letter,) = (await world.http.get("/api/v1/dlq")).json()["records"]
        found = await operate(world, "dlq/resume", {"ids": [letter["id"]]})
        assert (found["done"], found["skipped"]) == (0, {"a person's no": 1})
        assert "replay it to ask anew" in found["reasons"][0]["why"]
        meant = {"ids": [letter["id"]], "despite_no": True}
        assert (await operate(world, "dlq/resume", meant))["done"] == 1
        assert len((await world.http.get("/api/v1/dlq")).json()["records"]) == 2

    run(body)


def test_an_edited_dead_letter_is_a_new_run():
    """Sent back under its old id it would be taken for the same task, and refused as a conflict."""

    async def body(world: World) -> None:
        letter = await broken(world)
        for door in ("dlq", "quarantine"):
            path = f"{door}/{letter['id']}/edit"
            told = {"value": {"text": f"mended by {door}"}, "again": True}
            assert (await operate(world, path, told))["done"] == 1
        ended = [event for event in world.t.life() if event.status == "completed"]
        assert sorted(event.outcome for event in ended) == [
            b'"default/: mended by dlq"', b'"default/: mended by quarantine"',
        ]  # fmt: skip
        assert (await world.http.get("/api/v1/quarantine")).json()["records"] == []

    run(body)


def test_dead_letters_are_not_sent_back_as_they_were():
    """Quarantine's way back would be a task that was taken already, which nobody would see."""

    async def body(world: World) -> None:
        letter = await broken(world)
        for told in ({"ids": [letter["id"]]}, {"topic": DLQ}):
            for verb in ("replay", "discard"):
                answer = await world.http.post(f"/api/v1/quarantine/{verb}", json=told)
                assert (answer.status_code, answer.json()["title"]) == (422, "Dead letters")

    run(body)


@pytest.mark.parametrize(
    "told",
    [
        {"topic": "hw.dlq.other.v1"},
        {"since_ms": -1},
        {"since_ms": "0"},
        {"since_ms": 0.5},
        {"agnet": "other", "since_ms": 1},
    ],
)
@pytest.mark.parametrize("verb", ["discard", "replay", "resume"])
def test_what_narrows_no_dead_letters_is_not_taken_for_all_of_them(verb, told):
    """A topic, or a word misspelt, is no filter of dead letters: every agent's failed runs were dropped."""

    async def body(world: World) -> None:
        await broken(world)
        world.http.event_hooks = {}  # the document tells of no such body, and it was taken
        answer = await world.http.post(f"/api/v1/dlq/{verb}", json=told)
        if answer.is_success:
            await asyncio.to_thread(world.operating.join, answer.json()["operation"])
            await world.go_on()
        (letter,) = (await world.http.get("/api/v1/dlq")).json()["records"]
        assert (answer.status_code, letter["done"]) == (422, None)

    run(body)


@pytest.mark.parametrize("by_id", [False, True])
def test_a_filter_beside_a_topic_or_an_id_is_not_passed_over(by_id):
    """`quarantine discard --topic T --agent A` dropped records of every agent in T."""

    async def body(world: World) -> None:
        (one,) = await spoil(world, b"rubbish")
        told = {"agent": "echo"} | ({"ids": [one["id"]]} if by_id else {"topic": CMD})
        answer = await world.http.post("/api/v1/quarantine/discard", json=told)
        if answer.is_success:
            await asyncio.to_thread(world.operating.join, answer.json()["operation"])
        (one,) = (await world.http.get("/api/v1/quarantine")).json()["records"]
        assert one["done"] is None

    run(body)


def test_who_acts_says_so_where_there_are_no_tokens():
    """What was done is kept with who did it; a token's word counts more than anybody's own."""

    async def body(world: World) -> None:
        await spoil(world, b"rubbish")
        told = {"all": True, "by": "kim", "reason": "spam"}
        assert (await operate(world, "quarantine/discard", told))["actor"] == "kim"
        (one,) = (await world.http.get("/api/v1/quarantine")).json()["records"]
        assert one["done_by"] == "kim"
        bad = await world.http.post("/api/v1/quarantine/discard", json=told | {"by": "a\nb"})
        assert bad.status_code == 422

    async def with_tokens(world: World) -> None:
        bearer = {"headers": {"authorization": "Bearer o"}}
        told = {"all": True, "by": "kim"}
        assert (await operate(world, "dlq/discard", told, **bearer))["actor"] == "eva"

    run(body)
    run(with_tokens, callers={"o": Caller(actor="eva")})


def test_a_list_of_a_topic_that_is_not_there_says_so():
    """A misspelt topic must not look like one where nothing was refused."""

    async def body(world: World) -> None:
        answer = await world.http.get("/api/v1/quarantine", params={"topic": "hw.cmd.triag.v1"})
        assert (answer.status_code, "hw.cmd.triag.v1" in answer.json()["detail"]) == (404, True)
        assert (await world.http.get("/api/v1/quarantine", params={"topic": CMD})).is_success

    run(body)


def test_a_stack_trace_is_text_and_an_error_is_found_by_its_short_name():
    """What a person reads at night is readable, and they type what the list shows."""

    async def body(world: World) -> None:
        letter = await broken(world)
        one = (await world.http.get(f"/api/v1/dlq/{letter['id']}")).json()
        assert "in triage\nValueError: bad luck" in one["headers"]["error.stacktrace"]
        await denied(world)
        found = (await world.http.get("/api/v1/dlq", params={"error": "Denied"})).json()["records"]
        assert [one["code"] for one in found] == ["headwater.errors.Denied"]

    run(body)


def test_tenants_touch_their_own_dead_letters_alone():
    """They see no others, replay no others, and have no business in quarantine."""
    callers = {
        "a": Caller(tenant="a", actor="ana"),
        "b": Caller(tenant="b", actor="bob"),
        "o": Caller(actor="eva"),
    }

    async def body(world: World) -> None:
        def bearer(token: str) -> dict[str, Any]:
            return {"headers": {"authorization": f"Bearer {token}"}}

        await world.publish({"text": "break"}, **bearer("a"))
        (letter,) = (await world.http.get("/api/v1/dlq", **bearer("a"))).json()["records"]
        assert letter["tenant"] == "a"
        assert (await world.http.get("/api/v1/dlq", **bearer("b"))).json()["records"] == []
        one = f"/api/v1/dlq/{letter['id']}"
        assert (await world.http.get(one, **bearer("b"))).status_code == 404
        assert (await world.http.get(one, **bearer("a"))).status_code == 200
        for verb in ("replay", "resume", "discard"):
            told = {"ids": [letter["id"], letter["run"]]}
            found = await operate(world, f"dlq/{verb}", told, **bearer("b"))
            assert found["done"] == 0, verb
            answer = await world.http.post(
                f"/api/v1/dlq/{verb}", json={"tenant": "b"}, **bearer("a")
            )
            assert answer.status_code == 403, "another tenant's are none of one's own"
            assert "tenant 'b'" in answer.json()["detail"]
        assert (await world.http.get("/api/v1/dlq?tenant=b", **bearer("a"))).status_code == 403
        edited = await operate(
            world, f"dlq/{letter['id']}/edit", {"value": {"text": "x"}}, **bearer("a")
        )
        assert (edited["done"], edited["tenant"]) == (1, "a"), "who edits sees what comes of it"
        told = {"all": True, "again": True}
        mine = await operate(world, "dlq/replay", told, **bearer("a"))
        assert (mine["done"], mine["actor"]) == (1, "ana")
        url = f"/api/v1/operations/{mine['operation']}"
        assert (await world.http.get(url, **bearer("b"))).status_code == 404
        assert (await world.http.get(url, **bearer("o"))).status_code == 200
        for path in ("quarantine/replay", "quarantine/discard", "quarantine/x/edit"):
            answer = await world.http.post(f"/api/v1/{path}", json={"all": True}, **bearer("a"))
            assert answer.status_code == 403, path

    run(body, callers=callers)


@pytest.mark.parametrize(
    ("path", "told", "status"),
    [
        ("quarantine/replay", {}, 422),
        ("dlq/replay", {"rate": -1, "all": True}, 422),
        ("dlq/replay", {"ids": 7}, 422),
        ("dlq/replay", {"since_ms": "noon"}, 422),
        ("dlq/replay", {"agent": "nobody"}, 404),
        ("dlq/replay", [], 422),
        ("quarantine/x/edit", {}, 404),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(path: str, told: Any, status: int) -> None:
    """With a problem document that says what is wrong."""

    async def body(world: World) -> None:
        answer = await world.http.post(f"/api/v1/{path}", json=told)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"

    run(body)


def test_a_rate_is_kept():
    """Records go in batches no larger than a second's worth."""

    async def body(world: World) -> None:
        await spoil(world, *[b"junk"] * 30)
        found = await operate(world, "quarantine/replay", {"all": True, "rate": 10_000})
        assert found["done"] == 30

    run(body)
