"""What compiled forms write and read is what fastavro writes and reads."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.admission import rows as admission
from headwater.contracts import compiled, frames, messages
from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import Json, shape_of, shape_of_parameters
from headwater.contracts.shape import Shape
from headwater.core.decider import Timer
from headwater.errors import PoisonError
from headwater.runs import rows

SCHEMAS = Schemas()
OWN = (*messages.SHIPPED, *rows.KINDS, *admission.KINDS, Timer)
PREFIX = 10


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    BLUE = 2


class Leaf(pydantic.BaseModel):
    """A user's model, with what the platform's own messages have not."""

    name: str = pydantic.Field(alias="Name")
    sure: bool
    colour: Colour
    colours: list[Colour]
    word: Literal["a", "b"]
    rank: Literal[1, 2]
    either: str | int | None
    blob: bytes | str
    json_: Json
    children: list[Leaf]

    model_config = pydantic.ConfigDict(populate_by_name=True)


@dataclasses.dataclass(frozen=True)
class Empty:
    """A record of no bytes."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Holds an empty record, which may be done in a few bytes only once."""

    one: Empty
    other: Empty | None = None


USERS = (Leaf, Holder, str, int, bool, bytes, list[str], tuple[int, ...], str | None)


def slowly(shape: Shape[Any]) -> Shape[Any]:
    """Return the shape as fastavro alone makes it."""
    slow = shape.through(lambda value: value, lambda value: value)
    slow._write = slow._read = None
    return slow


def outcome(act: Any) -> Any:
    """Return what came of it, a refusal being one thing that can come."""
    try:
        return act()
    except PoisonError as error:
        return error.code


def values(type_: Any) -> st.SearchStrategy[Any]:
    """Return values of a type, numbers over 64 bits among them."""
    if type_ is Leaf:
        own = typing.get_type_hints(Leaf)
        fields = {name: st.from_type(of) for name, of in own.items() if name in Leaf.model_fields}
        fields |= {"json_": st.just({"a": [1]}), "children": st.just([])}
        leaf = st.builds(Leaf, **fields)
        return st.builds(lambda a, b: a.model_copy(update={"children": [b, b]}), leaf, leaf)
    return st.from_type(type_)


@pytest.mark.parametrize("type_", [*OWN, *USERS], ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_compiled_forms_write_and_read_what_fastavro_does(type_: Any, data: st.DataObject) -> None:
    """Byte for byte, and value for value; what one refuses the other refuses."""
    shape = shape_of(type_)
    slow = slowly(shape)
    value = data.draw(values(type_))
    written = outcome(lambda: shape.encode(value))
    assert written == outcome(lambda: slow.encode(value))
    if isinstance(written, bytes):
        assert shape.decode(written, SCHEMAS) == slow.decode(written, SCHEMAS) == value
        assert straight(shape, value) == (written, (value, len(written)))


@pytest.mark.parametrize("type_", [*OWN, *USERS], ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_read_as_fastavro_reads_them(type_: Any, data: st.DataObject) -> None:
    """A compiled reader never makes a value of bytes that fastavro refuses, nor another value."""
    shape = shape_of(type_)
    written = data.draw(values(type_).map(lambda v: outcome(lambda: shape.encode(v))))
    if not isinstance(written, bytes):
        return
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(1, 3))):
        if len(damaged) > PREFIX:
            place = data.draw(st.integers(PREFIX, len(damaged) - 1))
            damaged[place] = data.draw(st.integers(0, 255))
    damaged = damaged[: len(damaged) - data.draw(st.integers(0, 2))] + data.draw(
        st.binary(max_size=2)
    )
    assert outcome(lambda: shape.decode(bytes(damaged), SCHEMAS)) == outcome(
        lambda: slowly(shape).decode(bytes(damaged), SCHEMAS)
    )


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a reader of one field has to pass over."""

    names: tuple[str | int, ...]
    pairs: list[tuple[bytes, ...]]
    leaf: Timer | None
    sure: bool
    either: str | int | None
    last: int


@pytest.mark.parametrize("type_", [*OWN, Parts], ids=str)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_one_field_is_read_as_the_whole_is(type_: Any, data: st.DataObject) -> None:
    """Whatever is before it; and where the bytes are cut, the whole says what is wrong."""
    shape = shape_of(type_)
    value = data.draw(values(type_))
    written = outcome(lambda: shape.encode(value))
    if not isinstance(written, bytes):
        return
    for field in dataclasses.fields(type_):
        read = shape.field(field.name, SCHEMAS)
        assert read(written) == getattr(value, field.name)
        with pytest.raises(PoisonError, match="cannot be read"):
            read(written[:PREFIX] + b"\xff")


def test_one_field_of_a_type_that_is_not_compiled_is_read_too() -> None:
    """Of what fastavro alone reads, the whole is read first."""

    @dataclasses.dataclass(frozen=True)
    class Moment:
        at: datetime.datetime
        name: str

    shape = shape_of(Moment)
    value = Moment(at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), name="a")
    assert shape.field("name", SCHEMAS)(shape.encode(value)) == "a"


@pytest.mark.parametrize("number", [-(1 << 63), 1 - (1 << 63), (1 << 63) - 1, 0, -1])
def test_the_outermost_numbers_of_64_bits_are_written_straight(number: int) -> None:
    """Avro's `long` has one more below zero than above it."""
    shape = shape_of(int)
    written = slowly(shape).encode(number)
    assert straight(shape, number) == (written, (number, len(written)))


@pytest.mark.parametrize("number", [-(1 << 63) - 1, 1 << 63, -(1 << 80), 1 << 80])
def test_numbers_over_64_bits_are_refused(number: int) -> None:
    """Nobody else could read them."""
    with pytest.raises(OverflowError, match="over 64 bits"):
        straight(shape_of(int), number)


def straight(shape: Shape[Any], value: Any) -> Any:
    """Return what compiled functions alone write of a value, and read of that."""
    write, read = shape._write, shape._read
    if write is None or read is None:
        return shape.encode(value), (value, len(shape.encode(value)))
    written = frames.SINGLE + shape.fingerprint + write(value)
    return written, read(written, PREFIX)


@pytest.mark.parametrize("type_", OWN, ids=str)
def test_every_message_and_row_of_ours_is_compiled(type_: Any) -> None:
    """Nothing on the hot path takes the long way."""
    shape = shape_of(type_)
    assert is_compiled(shape)


def is_compiled(shape: Shape[Any]) -> bool:
    """Say which way a shape takes, which shows nowhere else."""
    return (shape._write, shape._read).count(None) == 0


def test_users_types_are_compiled_too() -> None:
    """A model that holds itself, enums met twice, a tool's parameters, an agent's bare text."""
    assert is_compiled(shape_of(Leaf))
    assert is_compiled(shape_of(str))
    parameters = shape_of_parameters([("card", str, ...), ("cents", int, 5)], name="Pay")
    assert is_compiled(parameters)
    written = parameters.encode({"card": "x"})
    assert written == slowly(parameters).encode({"card": "x"})
    assert parameters.decode(written, SCHEMAS) == {"card": "x", "cents": 5}


@pytest.mark.parametrize(
    "type_",
    [
        datetime.datetime,
        dict[str, int],
        float | None,
        int | bool,
        list[Empty],
        enum.Enum("Large", [f"M{n}" for n in range(65)]),
    ],
    ids=str,
)
def test_what_compiled_forms_do_not_know_is_left_to_fastavro(type_: Any) -> None:
    """A timestamp, a map, members that their Python type alone does not tell apart, items of no bytes."""
    assert not is_compiled(shape_of(type_, name="Value"))


@pytest.mark.parametrize(
    "datum",
    [
        b"\x02\x02a\x02\x02b\x00",
        b"\x01\x04\x02a\x00",
        b"\x82\x00\x02a\x00",
        b"\x02\x82\x80\x00a\x00",
        b"\x80\x01" + b"\x02a" * 64 + b"\x00",
        b"\x02\x80\x02" + b"a" * 128 + b"\x00",
    ],
    ids=["blocks", "sized", "long-count", "long-size", "many", "large"],
)
def test_unusual_lists_are_read(datum: bytes) -> None:
    """Two blocks, a block with its size, numbers written with more bytes than they need."""
    shape = shape_of(list[str], name="Words")
    framed = frames.SINGLE + shape.fingerprint + datum
    found = shape.decode(framed, SCHEMAS)
    assert found == slowly(shape).decode(framed, SCHEMAS)
    assert found


@pytest.mark.parametrize("number", [-(1 << 63), (1 << 63) - 1, 1 << 63, True, 1.0, "1", None])
def test_numbers_are_written_as_fastavro_writes_them(number: Any) -> None:
    """Up to 64 bits; what only equals a number is none."""
    shape = shape_of(messages.Spent)
    value = messages.Spent(steps=number)
    assert outcome(lambda: shape.encode(value)) == outcome(lambda: slowly(shape).encode(value))


@pytest.mark.parametrize(
    "datum", [b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\x00"]
)
def test_numbers_over_64_bits_are_read_as_fastavro_reads_them(datum: bytes) -> None:
    """Whatever it makes of them."""
    shape = shape_of(int)
    framed = frames.SINGLE + shape.fingerprint + datum
    assert outcome(lambda: shape.decode(framed, SCHEMAS)) == outcome(
        lambda: slowly(shape).decode(framed, SCHEMAS)
    )


def test_numbers_that_are_kept_are_bounded() -> None:
    """Writing ever new numbers takes no more memory."""
    numbers = compiled._Numbers()
    for number in range(compiled._KEPT_MAX * 2 + 2):
        assert numbers[number]
    assert len(numbers) <= compiled._KEPT_MAX


def test_texts_that_are_kept_are_bounded() -> None:
    """Ever new texts take no more memory, and long ones none."""
    texts = compiled._Texts()
    for number in range(compiled._KEPT_MAX * 2 + 2):
        assert texts[f"run {number}"].endswith(b"%d" % number)
    assert len(texts) <= compiled._KEPT_MAX
    long = "x" * (compiled._KEPT_BYTES_MAX + 1)
    assert texts[long].endswith(long.encode())
    assert long not in texts
