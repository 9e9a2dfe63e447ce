"""The models effector against a provider on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import pytest
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from tests.unit.models.provider import Provider, completion, running, stream

from headwater.contracts.messages import Ask, Failed, ReplyTo
from headwater.core.effector import Attempt, Call, Done, Safety
from headwater.core.messages import Meta
from headwater.core.prices import Prices, usd_per_million
from headwater.errors import PoisonError, SettingsError, TransientError
from headwater.models import providers
from headwater.models.effector import STREAM_CHARS_MIN, Models
from headwater.sdk import wire
from headwater.sdk.models import Model

PRICES = Prices(
    of={"small": usd_per_million(input_usd=1, output_usd=2)}, declared=frozenset({"small"})
)
REPLY_TO = ReplyTo(topic="in", partition=0, run="r", number=1)


@pytest.fixture
def provider():
    with running() as one:
        yield one


def model(provider: Provider, **options) -> Model:
    def build(settings):
        there = OpenAIProvider(base_url=provider.url, api_key="test")
        return OpenAIChatModel("gpt-5-mini", provider=there)

    return Model("small", build, **options)


def asking(prompt="hi", *, name="small", **fields) -> Ask:
    request = wire.ModelAsk(
        messages=[wire.prompt(prompt)], **({"settings": {"max_tokens": 50}} | fields)
    )
    return Ask(
        run="r",
        number=1,
        name=name,
        arguments=request.model_dump_json().encode(),
        safety="paid",
        not_after_ms=0,
        reply_to=REPLY_TO,
    )


def perform(models: Models, ask: Ask, pieces: list[str] | None = None):
    call = Call(
        id="r/1",
        safety=Safety.PAID,
        order_key="",
        not_after_ms=0,
        reply_to=REPLY_TO,
        meta=Meta(id="m", tenant="t"),
    )

    async def progress(text):
        assert pieces is not None, "nothing is streamed"
        pieces.append(text)

    attempt = Attempt(id="a", number=1, heartbeat=lambda _: None, progress=progress)
    return asyncio.run(models.perform(call, ask, attempt))


def answered(result) -> wire.ModelAnswer:
    assert isinstance(result, Done), result
    return wire.ModelAnswer.model_validate_json(result.value)


def test_a_prompt_is_asked_once_and_its_answer_priced(provider):
    """One request a call, with its settings; tokens and price are in the reply."""
    provider.will(completion("hello"))
    result = perform(Models({"small": model(provider)}, prices=PRICES), asking("hi there"))
    answer = answered(result)
    assert wire.text_of(answer.response) == "hello"
    assert (answer.model, answer.input_tokens, answer.output_tokens) == ("gpt-5-mini", 11, 7)
    assert answer.usd_nano == 11 * 1_000 + 7 * 2_000
    assert (result.usage.input_tokens, result.usage.usd_nano) == (11, 25_000)
    (asked,) = provider.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["messages"] == [{"role": "user", "content": "hi there"}]
    assert 50 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))


def test_any_name_pydantic_ai_knows_works(provider, monkeypatch):
    """A model may be a provider's name and a model's, its address and key where that provider looks."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    provider.will(completion("by name"))
    models = Models({"small": Model("small", "openai-chat:gpt-5-mini")}, prices=Prices())
    answer = answered(perform(models, asking()))
    assert wire.text_of(answer.response) == "by name"


def test_a_model_is_built_once_and_only_when_it_is_asked(provider):
    """Building is lazy, and once a process."""
    built = []
    inner = model(provider)

    def build(settings):
        built.append(settings)
        return inner.spec(settings)

    provider.will(completion())
    models = Models({"small": Model("small", build)}, prices=PRICES, settings="the settings")
    assert built == []
    perform(models, asking())
    perform(models, asking())
    assert built == ["the settings"]


@pytest.mark.parametrize("spec", ["nowhere:nothing", lambda _: "nowhere:nothing"])
def test_a_model_that_cannot_be_built_says_which(spec):
    """A wrong name is an error that names the app's model."""
    with pytest.raises(SettingsError, match="model small cannot be built"):
        perform(Models({"small": Model("small", spec)}, prices=PRICES), asking())


def test_an_unknown_model_is_answered_with_those_there_are(provider):
    """The answer names the known ones."""
    models = Models({"small": model(provider)}, prices=PRICES)
    result = perform(models, asking(name="huge"))
    assert isinstance(result, Failed)
    assert "'huge'" in result.detail
    assert "small" in result.detail
    assert "none" in perform(Models({}, prices=PRICES), asking()).detail


@pytest.mark.parametrize(
    "arguments", [b"", b"{}", b'{"messages": [{"kind": "no"}], "settings": {}}']
)
def test_a_request_of_another_form_is_poison(provider, arguments):
    """What is not of the wire's form goes to quarantine."""
    ask = Ask(
        run="r",
        number=1,
        name="small",
        arguments=arguments,
        safety="paid",
        not_after_ms=0,
        reply_to=REPLY_TO,
    )
    with pytest.raises(PoisonError):
        perform(Models({"small": model(provider)}, prices=PRICES), ask)


def test_a_structured_answer_comes_by_the_output_tool(provider):
    """The output's schema is sent as a tool that must be called; its arguments are the answer."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    provider.will(completion(None, arguments={"n": 3}))
    answer = answered(
        perform(Models({"small": model(provider)}, prices=PRICES), asking(output=schema))
    )
    assert json.loads(wire.structured_of(answer.response)) == {"n": 3}
    (asked,) = provider.asked
    (tool,) = asked["tools"]
    assert tool["function"]["name"] == wire.OUTPUT_TOOL
    assert tool["function"]["parameters"]["properties"] == schema["properties"]
    assert asked["tool_choice"] == "required"


def test_a_streamed_answer_is_published_in_joined_pieces(provider):
    """Small pieces are joined; together they are the answer, which is also the reply's."""
    words = [f"word{n} " for n in range(30)]
    provider.will(stream(*words))
    pieces: list[str] = []
    models = Models({"small": model(provider)}, prices=PRICES)
    answer = answered(perform(models, asking(stream=True), pieces))
    assert "".join(pieces) == "".join(words) == wire.text_of(answer.response)
    assert len(pieces) < len(words) / 2
    assert all(len(piece) >= STREAM_CHARS_MIN for piece in pieces[:-1])
    assert (answer.input_tokens, answer.output_tokens) == (11, 7)
    assert provider.asked[0]["stream"] is True


def test_a_streamed_structured_answer_publishes_nothing(provider):
    """Only text is streamed to people."""
    provider.will(stream("plain"))
    pieces: list[str] = []
    models = Models({"small": model(provider)}, prices=PRICES)
    perform(models, asking(stream=True), pieces)
    assert pieces == ["plain"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_provider_in_trouble_is_tried_again(provider, status):
    """Overload, limits and server errors pass; each try in place is one request."""
    provider.will(b'{"error": {"message": "later"}}', status=status)
    with pytest.raises(TransientError, match="model small"):
        perform(Models({"small": model(provider)}, prices=PRICES), asking())
    assert len(provider.asked) == 1


def test_control_a_client_that_tries_again_itself_asks_more_than_once(provider):
    """The control: with the client's own retries on, one try of ours is several requests."""
    provider.will(b'{"error": {"message": "later"}}', status=503, retry_after_ms="1")
    provider.answers[0][1]["retry-after-ms"] = "1"
    with pytest.raises(TransientError):
        perform(
            Models({"small": model(provider)}, prices=PRICES),
            asking(settings={"max_tokens": 5, "max_retries": 2}),
        )
    assert len(provider.asked) == 3


def test_retry_after_is_handed_on(provider):
    """How long a provider asks to be left alone reaches the loop."""
    provider.will(b'{"error": {"message": "slow down"}}', status=429, Retry_After="17")
    with pytest.raises(TransientError) as caught:
        perform(Models({"small": model(provider)}, prices=PRICES), asking())
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "bad api_key=sk-12345678901"}),
        (401, {"message": "who are you"}),
        (404, {"message": "no such model"}),
        (429, {"message": "pay first", "code": "insufficient_quota", "type": "insufficient_quota"}),
    ],
)
def test_a_refusal_is_the_answer(provider, status, error):
    """The same request would be refused again: the run is told, with secrets hidden."""
    provider.will(json.dumps({"error": error}).encode(), status=status)
    result = perform(Models({"small": model(provider)}, prices=PRICES), asking())
    assert isinstance(result, Failed)
    assert result.error == "ModelError"
    assert "sk-12345" not in result.detail
    assert len(provider.asked) == 1


@pytest.mark.parametrize("body", [b"<html>", b"{", b"[]", b'{"choices": []}', b"null"])
def test_an_answer_nobody_can_read_is_an_error(provider, body):
    """A provider that answers nonsense is told to the run; nothing dies."""
    provider.will(body)
    result = perform(Models({"small": model(provider)}, prices=PRICES), asking())
    assert isinstance(result, Failed)
    assert result.error == "ModelError"


def test_a_provider_that_is_not_there_is_tried_again():
    """A refused connection passes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = Provider()
        nowhere.url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(TransientError, match=f"model small at {nowhere.url}/?: Connection"):
            perform(Models({"small": model(nowhere)}, prices=PRICES), asking())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_that_breaks_is_tried_again(provider, streamed):
    """Half an answer is none, streamed or not."""
    body = stream("half an answer " * 4, whole=False) if streamed else completion()[:30]
    provider.will(body, Content_Length=str(len(body) + 100))
    with pytest.raises(TransientError):
        perform(Models({"small": model(provider)}, prices=PRICES), asking(stream=streamed), [])


def test_an_answer_nobody_counted_is_charged_by_its_bytes(provider):
    """A provider that tells no usage costs at least what it can have cost, not nothing."""
    provider.will(completion("x" * 100, usage=None))
    ask = asking()
    answer = answered(perform(Models({"small": model(provider)}, prices=PRICES), ask))
    assert answer.input_tokens == len(ask.arguments)
    assert answer.output_tokens >= 100
    assert answer.usd_nano == answer.input_tokens * 1_000 + answer.output_tokens * 2_000


@pytest.mark.parametrize("spec", ["opnai:gpt-5-mini", "gateway/opnai:x", "qqqqqq:x"])
def test_an_unknown_provider_is_refused_before_anything_is_asked(spec):
    """The message names the nearest, or all."""
    with pytest.raises(SettingsError, match=r"model small: .*openai"):
        providers.check({"small": Model("small", spec)})


@pytest.mark.parametrize("spec", ["openai:not-yet", "vllm:x", "voyageai:x", "test", lambda _: None])
def test_a_known_provider_is_taken_whatever_the_model(spec):
    """It may have one that no list knows yet; what a function builds is the function's own."""
    providers.check({"small": Model("small", spec)})


def test_looking_whether_a_provider_is_known_imports_none():
    """Each brings a client of its own, which only the models role needs."""
    look = (
        "import sys; from headwater.models import providers; from headwater.sdk.models import Model; "
        "providers.check({'m': Model('m', 'anthropic:x')}); "
        "print('pydantic_ai.providers.anthropic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.parametrize("spec", ["gpt-5-mini", ":x", "openai:"])
def test_a_spec_that_names_no_provider_is_refused_where_it_is_declared(spec):
    """Whoever writes it sees the form."""
    with pytest.raises(SettingsError, match=r"model small: .* is no PROVIDER:MODEL"):
        Model("small", spec)
