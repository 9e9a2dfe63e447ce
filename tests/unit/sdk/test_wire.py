"""The wire: what is asked of models, as JSON that pydantic-ai reads."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelRequest, UserPromptPart
from tests.unit.sdk.host import structured, text

from headwater.sdk import wire


def ask(*messages: dict[str, Any]) -> wire.ModelAsk:
    return wire.ModelAsk(messages=[*messages], settings={"max_tokens": 1})


def test_messages_are_pydantic_ais() -> None:
    """Whatever this module writes, its type adapter reads."""
    answer = structured({"a": 1}, call_id="c1")
    messages = [
        wire.prompt("?"),
        answer,
        wire.retry("a: wrong", answer),
        *wire.closed(answer),
        *wire.closed(text("x")),
    ]
    found = ModelMessagesTypeAdapter.validate_python(messages)
    assert [message.kind for message in found] == [
        "request", "response", "request", "response", "request", "response"
    ]  # fmt: skip


def test_retry_answers_calls_or_speaks() -> None:
    """A call is answered by its id; words are answered in words."""
    (part,) = wire.retry("wrong", structured({}, call_id="c9"))["parts"]
    assert (part["tool_call_id"], part["tool_name"]) == ("c9", wire.OUTPUT_TOOL)
    assert "wrong" in part["content"]
    for answer in (None, text("hm")):
        (part,) = wire.retry("wrong", answer)["parts"]
        assert part["part_kind"] == "user-prompt"


def test_structured_answer_is_the_tools_or_the_text() -> None:
    """Arguments come as an object or as JSON; other tools' are not the answer."""
    assert wire.structured_of(structured({"a": 1})) == '{"a": 1}'
    assert wire.structured_of(structured('{"a":2}')) == '{"a":2}'
    other = {"part_kind": "tool-call", "tool_name": "other", "args": "{}"}
    answer = {"parts": [other, *text("words")["parts"]]}
    assert wire.structured_of(answer) == "words"
    assert wire.text_of({}) == ""


def test_digest_leaves_out_when_messages_were_made() -> None:
    """A replay makes the same messages at another time; it asks the same."""
    made = ModelMessagesTypeAdapter.dump_python(
        [ModelRequest(parts=[UserPromptPart(content="hi")])], mode="json"
    )[0]
    later = {**made, "parts": [{**made["parts"][0], "timestamp": "2030-01-01T00:00:00Z"}]}
    assert made != later
    assert wire.digest(ask(made)) == wire.digest(ask(later))
    assert wire.digest(ask({**made, "timestamp": "x"})) == wire.digest(ask(made))


def test_digest_keeps_what_messages_say() -> None:
    """A timestamp in a message's content is meaning, as is every setting."""
    one, two = (structured({"timestamp": day}) for day in ("monday", "tuesday"))
    assert wire.digest(ask(one)) != wire.digest(ask(two))
    plain = ask(wire.prompt("hi"))
    others = [
        plain.model_copy(update={"settings": {"max_tokens": 2}}),
        plain.model_copy(update={"output": {"type": "object"}}),
        plain.model_copy(update={"stream": True}),
        ask(wire.prompt("ho")),
        ask({"kind": "request", "parts": "hi"}),
        ask({"kind": "request", "parts": ["hi"]}),
    ]
    assert len({wire.digest(one) for one in [plain, *others]}) == len(others) + 1


def test_request_of_another_form_is_refused() -> None:
    """The effector quarantines what it does not know."""
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        wire.ModelAsk.model_validate({"messages": [], "settings": {}, "mood": "good"})
