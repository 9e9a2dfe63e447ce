"""Models: one request a call, answers in a type, and repairs of those that do not fit."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.unit.sdk.host import Host, structured, text

import headwater
from headwater.sdk import wire
from headwater.sdk.app import App
from headwater.sdk.models import Form

bank = App("bank")
small = bank.model("small", "test", settings={"temperature": 0}, timeout_s=9)


class Verdict(pydantic.BaseModel):
    amount: int
    why: str = ""


ASKS: dict[str, Any] = {
    "text": lambda: small("hello"),
    "terms": lambda: small("hello", settings={"max_tokens": 7}, timeout_s=2, stream=True),
    "verdict": lambda: small("how much?", output=Verdict),
    "number": lambda: small("how much?", output=int),
    "loose": lambda: small("which?", output=Annotated[str, ["unhashable"]]),
    "choice": lambda: small("which?", output=Literal["a", "b"]),
    "full": lambda: small("how much?", output=Verdict, full=True),
    "talk": lambda: small("hello", full=True),
    "event": lambda: small("how much?", output=threading.Event),
    "bad": lambda: small("hello", settings={"max_tokens": None}),
    "messages": lambda: small(
        [ModelRequest(parts=[UserPromptPart(content="one")]), wire.prompt("two"), "three"]
    ),
}


@bank.agent(budget=headwater.Budget(usd=None))
async def asks(ctx: headwater.Context, what: str) -> headwater.Json:
    answer = await ASKS[what]()
    if isinstance(answer, headwater.ModelReply):
        return {
            "output": answer.output if isinstance(answer.output, str) else answer.output.amount,
            "model": answer.model,
            "tokens": [answer.input_tokens, answer.output_tokens],
            "usd": answer.usd,
            "messages": answer.messages,
        }
    return answer.amount if isinstance(answer, Verdict) else answer


def request(host: Host) -> wire.ModelAsk:
    return wire.ModelAsk.model_validate_json(host.asked[-1].arguments)


def test_text_is_one_call() -> None:
    """A prompt goes out with settings that bound what it may cost."""
    host = Host(asks, "text")
    (asked,) = host.asked
    assert (asked.kind, asked.name) == ("model", "small")
    assert request(host) == wire.ModelAsk(
        messages=[wire.prompt("hello")], settings={"max_tokens": 4_096, "temperature": 0}
    )
    assert asked.options == {
        "timeout_ms": 9_000,
        "ceiling": {
            "input_bytes": len(asked.arguments), "max_tokens": 4_096, "model": "small"
        },
    }  # fmt: skip
    assert asked.digest == wire.digest(request(host))
    host.reply(1, text("hi"))
    assert host.result == "hi"


def test_terms_of_one_call_go_over_the_models() -> None:
    """Settings, time and streaming may differ per call."""
    host = Host(asks, "terms")
    (asked,) = host.asked
    assert request(host).settings == {"max_tokens": 7, "temperature": 0}
    assert request(host).stream
    assert asked.options["timeout_ms"] == 2_000
    assert asked.options["ceiling"]["max_tokens"] == 7
    assert host.tick(2).withdrawn == (1,)
    assert host.raised.error == "headwater.errors.ModelError"


def test_conversation_may_be_passed() -> None:
    """pydantic-ai messages, their JSON, and text mix."""
    messages = request(Host(asks, "messages")).messages
    found = ModelMessagesTypeAdapter.validate_python(messages)
    assert [message.parts[0].content for message in found] == ["one", "two", "three"]  # type: ignore[union-attr] # prompts


def test_answer_has_the_type_asked_for() -> None:
    """The schema goes out, the answer is validated by the run."""
    host = Host(asks, "verdict")
    assert request(host).output == Verdict.model_json_schema()
    host.reply(1, structured({"amount": 7}))
    assert host.result == 7
    host = Host(asks, "verdict")
    host.reply(1, text('{"amount": 8}'))
    assert host.result == 8


@pytest.mark.parametrize(
    ("what", "answer", "result"), [("number", 3, 3), ("choice", "a", "a"), ("loose", "b", "b")]
)
def test_what_is_no_object_travels_in_one(what: str, answer: Any, result: Any) -> None:
    """Providers want an object; the field is `response`."""
    host = Host(asks, what)
    output = request(host).output
    assert output is not None
    assert list(output["properties"]) == ["response"]
    host.reply(1, structured(json.dumps({"response": answer})))
    assert host.result == result


def test_answer_that_does_not_fit_is_sent_back_twice() -> None:
    """A repair is a new numbered call that says what was wrong; two at most."""
    host = Host(asks, "verdict")
    host.reply(1, structured({"amount": "much"}, call_id="c1"))
    second = request(host).messages
    assert second[1]["parts"][0]["tool_call_id"] == "c1"
    assert second[2]["parts"][0]["tool_call_id"] == "c1"
    assert "amount: Input should be a valid integer" in second[2]["parts"][0]["content"]
    host.reply(2, text("seven"))
    third = request(host).messages
    assert third[4]["parts"][0]["part_kind"] == "user-prompt"
    assert "Invalid JSON" in third[4]["parts"][0]["content"]
    host.reply(3, structured({"amount": 7}))
    assert host.result == 7
    assert [asked.number for asked in host.asked] == [1, 2, 3]


def test_third_answer_that_does_not_fit_is_an_error() -> None:
    """Nobody pays for ever."""
    host = Host(asks, "verdict")
    for number in (1, 2, 3):
        host.reply(number, structured({"why": "no amount"}))
    assert len(host.asked) == 3
    assert host.raised.error == "headwater.errors.ModelError"
    assert (
        "answered 3 times in another form than Verdict: amount: Field required"
        in host.raised.detail
    )


def test_full_reply_tells_what_it_took() -> None:
    """Tokens and money count repairs; the messages go on to a next question."""
    host = Host(asks, "full")
    host.reply(1, structured({}), model="m-1", input_tokens=1, output_tokens=2, usd_nano=3)
    good = structured({"amount": 7}, call_id="c2")
    host.reply(2, good, model="m-2", input_tokens=10, output_tokens=20, usd_nano=30)
    reply = host.result
    assert (reply["output"], reply["model"], reply["tokens"]) == (7, "m-2", [11, 22])
    assert reply["usd"] == pytest.approx(33e-9)
    found = ModelMessagesTypeAdapter.validate_python(reply["messages"])
    assert [message.kind for message in found] == ["request", "response"] * 2 + ["request"]
    assert found[-1].parts[0].tool_call_id == "c2"  # type: ignore[union-attr] # a tool's return


def test_full_reply_in_words() -> None:
    """Text leaves no call open, so the conversation ends with the answer."""
    host = Host(asks, "talk")
    host.reply(1, text("hi"))
    assert [message["kind"] for message in host.result["messages"]] == ["request", "response"]


@pytest.mark.parametrize(
    ("what", "words"), [("event", "no JSON schema"), ("bad", "max_tokens is a number")]
)
def test_question_that_cannot_be_asked_is_refused(what: str, words: str) -> None:
    """Nothing is asked that could not be answered or priced."""
    host = Host(asks, what)
    assert host.asked == []
    assert host.raised.error == "headwater.errors.SettingsError"
    assert words in host.raised.detail


def test_settings_that_cannot_work_are_refused_at_declaration() -> None:
    """The app is not built."""
    for settings in ({"max_tokens": 0}, {"max_tokens": "many"}):
        with pytest.raises(headwater.SettingsError, match="model big: max_tokens"):
            App("bank").model("big", "test", settings=settings)
    with pytest.raises(headwater.SettingsError, match="model big: timeout_s"):
        App("bank").model("big", "test", timeout_s=float("inf"))


def test_form_is_made_once() -> None:
    """Schemas are costly; a turn is not the place."""
    assert Form.of(Verdict) is Form.of(Verdict)
    loose = Annotated[str, ["unhashable"]]
    assert Form.of(loose) is not Form.of(loose)


def test_providers_see_every_tool_call_answered() -> None:
    """Through the models effector: the answer that did not fit comes back as that call's return."""
    seen: list[list[ModelMessage]] = []

    def respond(messages: list[ModelMessage], terms: AgentInfo) -> ModelResponse:
        seen.append(messages)
        args = {"amount": "much"} if len(seen) == 1 else {"amount": 7}
        return ModelResponse(parts=[ToolCallPart(terms.output_tools[0].name, args)])

    async def main() -> Any:
        async with headwater.testing.App(bank, models={small: FunctionModel(respond)}) as t:
            return await (await t.start(asks, "verdict")).result()

    assert asyncio.run(main()) == 7
    asked, answered = seen[1][1].parts[0], seen[1][2].parts[0]
    assert isinstance(asked, ToolCallPart)
    assert answered.part_kind in {"retry-prompt", "tool-return"}
    assert answered.tool_call_id == asked.tool_call_id
