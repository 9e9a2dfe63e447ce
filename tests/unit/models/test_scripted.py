"""Scripted models: every form of script, as text, in a type, streamed."""

from __future__ import annotations

import json

import pydantic
import pytest
from tests.unit.models.test_models import answered, asking, perform

from headwater.core.prices import Prices
from headwater.errors import TransientError
from headwater.models.effector import Models
from headwater.models.scripted import Scripted
from headwater.sdk import wire
from headwater.sdk.models import Model


class Verdict(pydantic.BaseModel):
    amount: int


def ask(script, prompt="my card is gone", pieces=None, **fields):
    """Return what a scripted model answers."""
    given = script if isinstance(script, Scripted) else Scripted(script)
    models = Models({"small": Model("small", given)}, prices=Prices())
    return answered(perform(models, asking(prompt, **fields), pieces))


def text(script, *args, **kwargs):
    return wire.text_of(ask(script, *args, **kwargs).response)


async def later(prompt):
    return f"later: {prompt}"


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("hello", "hello"),
        (["first", "second"], "first"),
        ({"card": "block", "": "other"}, "block"),
        ({"money": "pay", "": "other"}, "other"),
        (lambda prompt: prompt.upper(), "MY CARD IS GONE"),
        (later, "later: my card is gone"),
        (lambda messages, info: f"{len(messages)} {info.allow_text_output}", "1 True"),
        ([Verdict(amount=7)], '{"amount": 7}'),
        ([7], "7"),
    ],
)
def test_every_form_of_script_answers(script, answer):
    """One answer, a sequence, a mapping, a function of the prompt or of the messages."""
    assert text(script) == answer


def test_a_sequence_goes_on_with_its_last():
    """One answer a call, the last again and again."""
    models = Models({"small": Model("small", Scripted(["a", "b"]))}, prices=Prices())
    answers = [wire.text_of(answered(perform(models, asking())).response) for _ in range(3)]
    assert answers == ["a", "b", "b"]


def test_an_exception_in_a_script_is_raised():
    """A script can play a provider that is away."""
    models = Models(
        {"small": Model("small", Scripted([TransientError("away"), "back"]))}, prices=Prices()
    )
    with pytest.raises(TransientError):
        perform(models, asking())
    assert wire.text_of(answered(perform(models, asking())).response) == "back"


def test_a_mapping_without_an_answer_says_so():
    """The prompt is in the message."""
    with pytest.raises(LookupError, match="my card is gone"):
        ask({"money": "pay"})


OBJECT = Verdict.model_json_schema()
WRAPPED = {"type": "object", "properties": {"response": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("script", "schema", "arguments"),
    [
        ([Verdict(amount=7)], OBJECT, {"amount": 7}),
        ([{"amount": 7}], OBJECT, {"amount": 7}),
        ([7], WRAPPED, {"response": 7}),
        ([{"response": 7}], WRAPPED, {"response": 7}),
        ([[1, 2]], OBJECT, {"response": [1, 2]}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_in_a_type_comes_by_the_output_tool(script, schema, arguments, streamed):
    """As a provider's would, streamed or not."""
    answer = ask(script, output=schema, stream=streamed, pieces=[])
    assert json.loads(wire.structured_of(answer.response)) == arguments


def test_a_streamed_answer_comes_in_pieces():
    """The pieces are the answer."""
    pieces: list[str] = []
    assert text("x" * 100, stream=True, pieces=pieces) == "".join(pieces)
    assert len(pieces) > 1


def test_tokens_are_counted_alike_every_time():
    """Figures of a demo or a test do not wander."""
    first, second = ask("some words here"), ask("some words here")
    assert first.input_tokens > 0
    assert first.output_tokens > 0
    assert (first.input_tokens, first.output_tokens) == (second.input_tokens, second.output_tokens)


def test_a_conversation_without_a_prompt_is_answered():
    """The newest user's prompt counts; where there is none, the empty one."""
    models = Models({"small": Model("small", Scripted({"": "any"}))}, prices=Prices())
    system = {"kind": "request", "parts": [{"part_kind": "system-prompt", "content": "be kind"}]}
    request = wire.ModelAsk(messages=[system], settings={})
    done = perform(models, _asking(request))
    assert wire.text_of(answered(done).response) == "any"


def test_a_prompt_of_parts_is_matched_by_its_text():
    """A prompt may be a list of parts."""
    part = {"part_kind": "user-prompt", "content": ["my card", "is gone"]}
    request = wire.ModelAsk(messages=[{"kind": "request", "parts": [part]}], settings={})
    models = Models({"small": Model("small", Scripted({"is gone": "block"}))}, prices=Prices())
    assert wire.text_of(answered(perform(models, _asking(request))).response) == "block"


def _asking(request):
    ask = asking()
    return type(ask)(
        run=ask.run,
        number=ask.number,
        name=ask.name,
        arguments=request.model_dump_json().encode(),
        safety=ask.safety,
        not_after_ms=ask.not_after_ms,
        reply_to=ask.reply_to,
    )
