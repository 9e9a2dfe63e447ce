"""The desk in memory: what customers are told, and when a person is asked."""

from __future__ import annotations

import asyncio
import dataclasses
import decimal
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from examples.desk import app as desk_app
from examples.desk import bank, demo, scripts, story
from examples.desk.app import app, balance, desk, pay, reader
from examples.desk.types import Answer, ApprovalWanted, Message, Transfer

import headwater
from headwater.contracts.records import Draft
from headwater.contracts.topics import Names
from headwater.testing import App, Run, StillWaitingError


def serve(
    text: str, act: Callable[[App, Run], Awaitable[None]] | None = None, **options: Any
) -> tuple[Answer, list[str], list[ApprovalWanted]]:
    """Return the answer to a letter, the calls made, and the approvals asked for."""

    async def main() -> tuple[Answer, list[str], list[ApprovalWanted]]:
        async with App(app, **options) as t:
            run = await t.start(desk, Message(customer="ana", text=text))
            if act is not None:
                await act(t, run)
            answer = await run.result()
            calls = [f"{call.kind} {call.name}" for call in run.calls]
            return answer, calls, t.emitted(run, ApprovalWanted)

    return asyncio.run(main())


LOOK = ["tool balance", "model reader"]


def test_lost_card_is_blocked() -> None:
    """The model names the card, the tool blocks it."""
    answer, calls, _ = serve("My card 4711 was stolen!")
    assert answer == Answer(text="Card 4711 is blocked.", done=["blocked 4711: B-0001"])
    assert calls == [*LOOK, "tool block_card"]


def test_question_is_answered_from_the_facts() -> None:
    """What the model may say comes from a tool."""
    answer, calls, _ = serve("How much have I got?")
    assert answer.text == "You have 15000.00 euros."
    assert calls == [*LOOK, "model writer"]


@pytest.mark.parametrize("kind", ["lost_card", "transfer"])
def test_intent_without_its_facts_is_a_question(kind: str) -> None:
    """A model that names no card and no sum blocks none and sends none."""
    answer, calls, _ = serve("?", models={reader: [{"kind": kind}]})
    assert answer.done == []
    assert calls == [*LOOK, "model writer"]


def test_small_transfer_asks_nobody() -> None:
    """Below the limit and without suspicion the desk pays."""
    answer, calls, asked = serve("Send 20 euros to ben")
    assert answer.text == "20.00 euros are on their way to ben."
    assert calls == [*LOOK, "agent assess", "tool pay"]
    assert asked == []


@pytest.mark.parametrize("text", ["Transfer 5000 euros to ben", "Pay 75.50 to mule"])
@pytest.mark.parametrize("approve", [True, False])
def test_person_decides_where_much_money_moves(text: str, approve: bool) -> None:
    """Nothing is paid before they say so; the control is that the run waits without it."""

    async def decide(t: App, run: Run) -> None:
        with pytest.raises(StillWaitingError, match=r"approval \w+ \(send "):
            await run.result()
        assert "tool pay" not in [f"{call.kind} {call.name}" for call in run.calls]
        await t.crash()
        await (t.approve if approve else t.deny)(run, by="eva")

    answer, calls, asked = serve(text, decide)
    assert ("tool pay" in calls) is approve
    assert [one.transfer.account for one in asked] == ["ana"]
    if not approve:
        assert answer.done[0].endswith(": denied by eva")


def test_nobody_decides_in_time() -> None:
    """After a day the money stays."""

    async def wait(t: App, run: Run) -> None:
        await t.advance(days=1, seconds=1)

    answer, calls, _ = serve("Transfer 5000 euros to ben", wait)
    assert answer.text == "Nobody could check your transfer in time; nothing was sent."
    assert "tool pay" not in calls


def test_payment_that_fails_is_told() -> None:
    """A tool's error is an error that the agent can catch."""
    answer, _, _ = serve("Send 900 to ben", tools={pay: refuses})
    assert answer.text == "Nothing was sent: closed on sundays"


def refuses(transfer: Transfer) -> str:
    raise ValueError("closed on sundays")


def test_malformed_task_stops_nobody() -> None:
    """What is no letter goes to quarantine as it came; the letter behind it is answered."""

    async def main() -> tuple[list[bytes], str]:
        async with App(app, partitions=1) as t:
            headers = (("ce_tenantid", b"default"),)
            topic = demo.topic(app.namespace)
            await t.log.append(Draft(topic=topic, value=b"no letter", headers=headers))
            run = await t.start(desk, Message(customer="ben", text="How much have I got?"))
            answer = await run.result()
            return [record.value for record in t.quarantined(desk)], answer.text

    assert asyncio.run(main()) == ([b"no letter"], "You have 80.50 euros.")


def test_bank_does_the_same_thing_once() -> None:
    """The same key changes nothing and answers the same; another key is another transfer."""
    here = bank.example()
    first = here.transfer("ana", "ben", decimal.Decimal(100), "k1")
    assert here.transfer("ana", "ben", decimal.Decimal(100), "k1") == first
    assert here.balance("ben") == decimal.Decimal("180.50")
    assert here.transfer("ana", "ben", decimal.Decimal(100), "k2") != first
    assert here.block("4711", "k3") == here.block("4711", "k3")
    with pytest.raises(ValueError, match="less than"):
        here.transfer("ben", "ana", decimal.Decimal(10_000), "k4")


def test_tools_run_without_a_log() -> None:
    """`invoke` takes a call of one's own."""
    call = headwater.Call(deps=bank.example())
    assert asyncio.run(balance.invoke(call, {"account": "ben"})) == decimal.Decimal("80.50")


def test_scripts_read_what_customers_write() -> None:
    """The demo's models are rules; these are theirs."""
    assert scripts.read("card 4711 is fine") == {"kind": "question"}
    assert scripts.read("PAY 3.50 to Ben")["to"] == "ben"
    assert scripts.write("hm") == "Could you say that in other words?"


def test_desk_is_an_app_that_can_run() -> None:
    """Every role would load it."""
    app.check()
    assert app.services() == ["cards", "payments", "tools"]
    assert demo.topic(app.namespace) == Names(app.namespace).cmd(desk_app.desk.name)


@pytest.mark.slow
def test_demo_runs_offline() -> None:
    """`make demo`: a timeline, a refusal, a tree, tokens and money."""
    check_demo([], {})


@pytest.mark.kafka
@pytest.mark.slow
def test_demo_runs_on_kafka(kafka: str) -> None:
    """`make demo LOG=kafka`: the same as a fleet of processes."""
    namespace = f"demo-{uuid.uuid4().hex[:8]}"
    check_demo(
        ["--log", "kafka"],
        {"HEADWATER_KAFKA__BOOTSTRAP": kafka, "HEADWATER_NAMESPACE": namespace},
    )


def check_demo(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.desk.demo", *arguments],
        cwd=demo.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "ana writes: My card 4711 was stolen! (as Avro, from a producer)",
        "refused with 422: desk.Message: text should be",
        "quarantined as wrong-magic",
        "eva approves",
        "eva declines",
        "5000.00 euros are on their way to carl.",
        "agent assess answered",
        "└── returned",
        "7 tasks: 5 completed, 2 refused · ",
        " tokens · $0.",
    ):
        assert words in done.stdout
    assert "\x1b" not in done.stdout, "a pipe gets no escape codes"


OTHER_ENDS = {
    "#1 was answered 'Card 4711 is blocked.', not 'Card 12 is blocked.'": dataclasses.replace(
        story.LETTERS[0], answer="Card 12 is blocked."
    ),
    "#1 waits for a person, where none must be asked": dataclasses.replace(
        story.LETTERS[3], decision=None
    ),
    "#1: a person was not asked": dataclasses.replace(
        story.LETTERS[2], decision=story.Decision(approve=True, by="eva", reason="")
    ),
}


@pytest.mark.parametrize("complaint", OTHER_ENDS)
def test_demo_that_ends_otherwise_fails(
    complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and a line that says what: the control of a demo that exits 0."""
    monkeypatch.setattr(story, "LETTERS", (OTHER_ENDS[complaint],))
    monkeypatch.setattr(demo.confine, "ensure_hash_seed", lambda: None)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 1
    assert f"demo: {complaint}\n" in capsys.readouterr().err


def test_demo_that_keeps_the_malformed_as_something_else_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class of the refusal counts too."""
    monkeypatch.setattr(story, "REFUSED", "unknown-schema")
    monkeypatch.setattr(story, "LETTERS", story.LETTERS[:1])
    monkeypatch.setattr(demo.confine, "ensure_hash_seed", lambda: None)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit):
        demo.main()
    complaint = "the malformed bytes were refused as wrong-magic, not unknown-schema"
    assert f"demo: {complaint}\n" in capsys.readouterr().err
