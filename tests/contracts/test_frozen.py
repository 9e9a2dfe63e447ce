"""Frozen values are, to whoever uses them, the frozen dataclasses that their fields would make."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
from typing import Any

import msgspec
import pydantic
import pytest

from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import Answered, Ask, Failed, Reply, ReplyTo, Spent, Usage
from headwater.contracts.records import Partition


class Sum(Frozen):
    """Of every kind of field."""

    place: int
    given: str = "x"
    made: list[int] = msgspec.field(default_factory=list)
    inner: Sum | Named | None = None


class Named(Frozen, kw_only=True, order=True):
    """Fields by name alone, in an order."""

    first: bytes
    later: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """A dataclass of the fields of `Sum`, and of its documentation."""

    place: int
    given: str = "x"
    made: list[int] = dataclasses.field(default_factory=list)
    inner: Plain | PlainNamed | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PlainNamed:
    """A dataclass of the fields of `Named`."""

    first: bytes
    later: tuple[int, ...] = ()


TWINS = ((Sum, Plain), (Named, PlainNamed))
VALUES = (
    Sum(1),
    Sum(2, "y", [3], inner=Named(first=b"z", later=(1, 2))),
    Named(first=b"a"),
    Reply(
        run="a.0.b",
        number=1,
        attempt="x",
        outcome=Failed(error="E", detail="why"),
        usage=Usage(model="m"),
        spent=Spent(steps=1),
    ),
)


def test_a_value_is_made_as_a_dataclass_is() -> None:
    """By place and by name, with defaults and factories; what is too much or too little is refused."""
    assert Sum(1) == Sum(place=1, given="x", made=[], inner=None)
    assert Sum(1).made is not Sum(1).made
    wrong: Any
    for wrong in (Sum, Named, lambda: Named(b"a"), lambda: Sum(1, other=2)):  # type: ignore[call-arg, misc] # refused
        with pytest.raises(TypeError):
            wrong()


def test_a_value_is_frozen() -> None:
    """No field is set or taken away."""
    with pytest.raises(AttributeError):
        Sum(1).given = "y"  # type: ignore[misc] # that is what is refused
    with pytest.raises(AttributeError):
        del Sum(1).given


def test_values_are_equal_and_in_order_as_dataclasses_are() -> None:
    """Of one class, by their fields; hashes are equal where they are."""
    assert len({Named(first=b"a"), Named(first=b"a"), Named(first=b"b")}) == 2
    assert Named(first=b"a", later=(2,)) < Named(first=b"b", later=(1,))
    assert Answered(value=b"x") != Spent()
    assert sorted([Partition("b", 1), Partition("a", 2)])[0].topic == "a"
    with pytest.raises(TypeError):
        hash(Sum(1))  # of a list


@pytest.mark.parametrize("value", VALUES)
def test_copies_are_the_same_value(value: Frozen) -> None:
    """Whatever copies it: processes pass values on as pickles."""
    passed_on = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
    for one in (copy.copy(value), copy.deepcopy(value), passed_on):
        assert one == value
    assert dataclasses.replace(value) == value


@pytest.mark.parametrize(("of", "plain"), TWINS)
def test_dataclasses_know_its_fields(of: Any, plain: Any) -> None:
    """What it says of a dataclass of the same fields it says of a value."""

    def told(of: Any) -> list[Any]:
        names = ("name", "default", "default_factory", "kw_only", "init", "repr", "compare", "hash")
        return [[getattr(field, name) for name in names] for field in dataclasses.fields(of)]

    assert dataclasses.is_dataclass(of)
    assert told(of) == told(plain)
    assert of.__match_args__ == plain.__match_args__


def test_dataclasses_take_a_value_apart() -> None:
    """Those within too."""
    _, value, *_ = VALUES
    inner = {"first": b"z", "later": (1, 2)}
    assert dataclasses.asdict(value) == {"place": 2, "given": "y", "made": [3], "inner": inner}
    assert pprint.pformat(Sum(1)) == repr(Sum(1)) == "Sum(place=1, given='x', made=[], inner=None)"


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_from_json(value: Frozen) -> None:
    """Read, and read again of what was read."""
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type(value))
    assert adapter.validate_json(adapter.dump_json(value)) == value
    assert adapter.validate_python(adapter.dump_python(value)) == value
    assert adapter.validate_python(value) is value


@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize(("of", "plain"), TWINS)
def test_a_values_json_schema_is_a_dataclasss(of: Any, plain: Any, mode: Any) -> None:
    """Titles, references and all."""

    def bare(found: dict[str, Any]) -> dict[str, Any]:
        return {key: found[key] for key in found if key != "description"}

    def schema(of: Any) -> Any:
        text = json.dumps(pydantic.TypeAdapter(of).json_schema(mode=mode))
        text = text.replace("PlainNamed", "Named").replace("Plain", "Sum")
        return json.loads(text, object_hook=bare)

    assert schema(of) == schema(plain)


def test_what_pydantic_refuses_it_names() -> None:
    """A member of a union by its own name, as it names a dataclass."""
    with pytest.raises(pydantic.ValidationError) as refused:
        pydantic.TypeAdapter(Reply).validate_json(
            '{"run": "r", "number": 1, "attempt": "", "outcome": {}}'
        )
    assert {error["loc"] for error in refused.value.errors()} == {
        ("outcome", "Answered", "value"),
        ("outcome", "Failed", "error"),
        ("outcome", "Failed", "detail"),
        ("outcome", "InDoubt", "since_ms"),
    }


def test_a_users_model_may_hold_values() -> None:
    """A value given to it stays the one that it is."""

    class Model(pydantic.BaseModel):
        ask: Ask

    ask = Ask(
        run="r",
        number=1,
        name="t",
        arguments=b"{}",
        safety="read",
        not_after_ms=1,
        reply_to=ReplyTo(topic="t", partition=0, run="r", number=1),
    )
    assert Model(ask=ask).ask is ask
    assert Model.model_validate_json(Model(ask=ask).model_dump_json()).ask == ask


def test_a_value_has_the_same_hash_in_every_process() -> None:
    """Sets of them have one order then; msgspec's own takes in where the type lies in memory."""

    class Place(Frozen):
        number: int
        epoch: int = 0

    assert hash(Place(3, 1)) == hash((3, 1))
    assert len({Place(3, 1), Place(3, 1), Place(3)}) == 2


def test_a_value_that_has_fields_from_above_is_told_to_name_them() -> None:
    """Its twin would lack their types; what `dataclasses` says of that names no way out."""

    class Above(Frozen):
        x: int

    class Below(Above):
        y: int = 0

    with pytest.raises(AssertionError, match="Below has x from a class above: let it name all"):
        dataclasses.replace(Below(1), y=2)
