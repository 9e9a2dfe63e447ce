"""Models in the performing loop: a provider in trouble, from the socket to the run's inbox."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.models.provider import Provider, completion, running, stream
from tests.unit.models.test_models import PRICES, model
from tests.unit.performing.world import QUARANTINE, World, finish

from headwater.contracts.messages import Answered, Failed
from headwater.models.effector import Models
from headwater.sdk import wire


@pytest.fixture
def provider():
    with running() as one:
        yield one


def ask(provider: Provider, **fields) -> World:
    """Have one request answered; return its world. Waits are remembered, not waited."""

    async def scene() -> World:
        world = World(Models({"small": model(provider)}, prices=PRICES))

        async def sleep(seconds: float) -> None:
            world.sleeps.append(seconds)

        world.sleep = sleep
        loop = world.performing()
        request = wire.ModelAsk(messages=[wire.prompt("hi")], settings={"max_tokens": 9}, **fields)
        arguments = request.model_dump_json().encode()
        await world.ask(name="small", safety="paid", arguments=arguments)
        await finish(loop)
        await loop.close()
        return world

    return asyncio.run(scene())


def text(world: World) -> str:
    (reply,) = world.replies()
    assert isinstance(reply.outcome, Answered)
    return wire.text_of(wire.ModelAnswer.model_validate_json(reply.outcome.value).response)


def test_a_limited_rate_is_waited_for_and_then_answered(provider):
    """429 with Retry-After, then 503, then an answer: one reply, charged once."""
    provider.will(b"{}", status=429, Retry_After="7")
    provider.will(b"{}", status=503)
    provider.will(completion("at last"))
    world = ask(provider)
    assert text(world) == "at last"
    assert world.sleeps == [7, 0.4]
    assert len(provider.asked) == 3
    (reply,) = world.replies()
    assert reply.usage is not None
    assert reply.usage.usd_nano == 11 * 1_000 + 7 * 2_000


def test_a_stream_that_broke_starts_over_under_a_higher_attempt(provider):
    """Whoever follows the run sees the first attempt's pieces, then all of the second's."""
    half = "half an answer, long enough to be published "
    broken = stream(half, whole=False)
    provider.will(broken, Content_Length=str(len(broken) + 10))
    provider.will(stream(half, "and the rest of it"))
    world = ask(provider, stream=True)
    whole = half + "and the rest of it"
    assert text(world) == whole
    tokens = world.tokens()
    numbers = [token.attempt.partition(".")[0] for token in tokens]
    assert numbers == sorted(numbers)
    assert "".join(token.text for token in tokens if token.attempt[0] == "2") == whole
    assert [token.seq for token in tokens if token.attempt[0] == "2"] == [1, 2]


def test_a_provider_that_stays_away_is_told_to_the_run(provider):
    """After five minutes of tries the error is the answer, and the run decides."""
    provider.will(b"{}", status=500)
    world = ask(provider)
    (reply,) = world.replies()
    assert isinstance(reply.outcome, Failed)
    assert reply.outcome.error == "TransientError"
    assert 200 < sum(world.sleeps) <= 300
    assert world.records(QUARANTINE) == []


def test_a_refusal_is_asked_once(provider):
    """A 400 is not tried again."""
    provider.will(b'{"error": {"message": "no"}}', status=400)
    world = ask(provider)
    assert world.replies()[0].outcome.error == "ModelError"
    assert len(provider.asked) == 1
    assert world.sleeps == []
