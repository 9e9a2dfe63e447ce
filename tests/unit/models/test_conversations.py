"""Models and conversations by reference: the provider is asked the whole of it, or nobody is."""

from __future__ import annotations

import pytest
from tests.unit.models.provider import Provider, completion, running
from tests.unit.models.test_models import PRICES, answered, asking, model, perform

from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts.messages import Failed
from headwater.errors import TransientError
from headwater.models.effector import Models
from headwater.runtime.restoring import Inline
from headwater.sdk import wire
from headwater.sdk.history import CUT_BYTES, History

SAID = [wire.prompt(f"{number} " + "x" * CUT_BYTES) for number in range(3)]


@pytest.fixture
def provider():
    with running() as one:
        yield one


@pytest.fixture
def blobs() -> Keeping:
    return Keeping(Store.at("memory:///", namespace="ns"), executor=Inline())


def chained(blobs: Keeping, tenant: str = "t") -> str:
    """Keep a conversation; return the name of its last part."""
    history = History()
    for size in (2, 3, 4):
        cut = history.cut([*SAID, wire.prompt("and now?")][:size])
        for node in cut.nodes:
            blobs.put(tenant, node).result()
    return cut.history


def test_the_provider_is_asked_the_whole_conversation(provider: Provider, blobs: Keeping) -> None:
    """Its parts in order, then what is new."""
    provider.will(completion("hello"))
    models = Models({"small": model(provider)}, prices=PRICES, blobs=blobs)
    result = perform(models, asking("and now?", history=chained(blobs)))
    assert wire.text_of(answered(result).response) == "hello"
    (asked,) = provider.asked
    texts = [message["content"] for message in asked["messages"]]
    assert [text.split()[0] for text in texts] == ["0", "1", "2", "and"]


def test_parts_are_fetched_once_a_process(provider: Provider, blobs: Keeping) -> None:
    """The second call of a conversation asks the store for nothing."""
    name = chained(blobs)
    provider.will(completion("one"))
    provider.will(completion("two"))
    models = Models({"small": model(provider)}, prices=PRICES, blobs=blobs)
    perform(models, asking(history=name))
    for blob in [*blobs.store.scan()]:
        blobs.store.drop(blob.tenant, blob.name)
    assert wire.text_of(answered(perform(models, asking(history=name))).response) == "two"


def test_a_lost_part_is_the_calls_failure_and_nobody_is_asked(
    provider: Provider, blobs: Keeping
) -> None:
    """Half a conversation would be answered otherwise, and paid for."""
    name = chained(blobs, tenant="other")
    models = Models({"small": model(provider)}, prices=PRICES, blobs=blobs)
    result = perform(models, asking(history=name))
    assert isinstance(result, Failed)
    assert result.error == "BlobLost"
    assert provider.asked == []


def test_without_a_store_the_call_waits(provider: Provider, blobs: Keeping) -> None:
    """A process that was set up otherwise answers nothing wrong."""
    models = Models({"small": model(provider)}, prices=PRICES)
    with pytest.raises(TransientError, match="HEADWATER_BLOBS__URL"):
        perform(models, asking(history=chained(blobs)))
    assert provider.asked == []


def test_a_provider_that_tells_no_usage_costs_the_whole_conversation(
    provider: Provider, blobs: Keeping
) -> None:
    """A token a byte of everything it was asked, not of what was new."""
    provider.will(completion("hello", usage=None))
    models = Models({"small": model(provider)}, prices=PRICES, blobs=blobs)
    answer = answered(perform(models, asking(history=chained(blobs))))
    assert answer.input_tokens > 3 * CUT_BYTES
