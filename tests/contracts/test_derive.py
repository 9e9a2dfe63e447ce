"""Avro derived from Python types: round trips, refusals, evolution."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import pytest

import headwater
from headwater.contracts import frames, json_text, parsing
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.derive import Json, shape_of, shape_of_parameters
from headwater.contracts.messages import Closed
from headwater.contracts.shape import Shape
from headwater.errors import PoisonError, SettingsError

Money = Annotated[decimal.Decimal, headwater.Scale(18, 4)]


class Kind(enum.Enum):
    CAR = "car"
    HOME = "home"


class Place(pydantic.BaseModel):
    x: int
    y: float = 0.5


class Person(pydantic.BaseModel):
    name: str


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    tags: tuple[str, ...] = ()


class Everything(pydantic.BaseModel):
    text: str
    number: int
    share: float
    flag: bool
    data: bytes
    at: datetime.datetime
    day: datetime.date
    own: uuid.UUID
    kind: Kind
    other: Kind
    word: Literal["a", "b"]
    amount: Money
    free: headwater.Json
    places: list[Place]
    by: dict[str, Place]
    maybe: Place | None
    nothing: int | None = None
    either: Place | Person | str | None = None
    point: Point = Point(x=1)
    note: Annotated[str, "a mark that means nothing to Avro"] = "n"
    since: datetime.date = datetime.date(2026, 1, 1)


class Inner(pydantic.BaseModel):
    odd: complex


class Outer(pydantic.BaseModel):
    inner: list[Inner]


EVERYTHING = Everything(
    text="ü",
    number=-(2**40),
    share=0.25,
    flag=True,
    data=b"\x00\xff",
    at=datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC),
    day=datetime.date(2026, 1, 2),
    own=uuid.UUID(int=7),
    kind=Kind.CAR,
    other=Kind.HOME,
    word="b",
    amount=decimal.Decimal("-12.3400"),
    free={"any": [1, None, "x"]},
    places=[Place(x=1), Place(x=2, y=1.5)],
    by={"k": Place(x=3)},
    maybe=Place(x=4),
    either=Person(name="ana"),
)


def again(shape: Shape[Any], value: Any) -> Any:
    """Return a value after a trip over the wire."""
    return shape.decode(shape.encode(value), Schemas())


def test_everything_that_the_docs_list_survives_the_wire() -> None:
    """Values and their types, to the last microsecond and digit."""
    shape = shape_of(Everything)
    assert again(shape, EVERYTHING) == EVERYTHING
    bare = EVERYTHING.model_copy(update={"maybe": None, "either": None})
    assert again(shape, bare) == bare
    assert again(shape, EVERYTHING.model_copy(update={"either": "text"})).either == "text"
    plain = EVERYTHING.model_copy(update={"data": b"text"})
    assert shape.from_json(shape.to_json(plain)) == plain
    assert b'"data":"AP8="' in shape.to_json(EVERYTHING)
    assert "places" in shape.json_schema()["properties"]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (str, "x"),
        (int | None, None),
        (int | str, 7),
        (int | str, "7"),
        (list[int], [1, 2]),
        (tuple[Place, ...], (Place(x=1),)),
        (dict[str, int], {"a": 1}),
        (Kind, Kind.HOME),
        (Money, decimal.Decimal("1.5000")),
        (datetime.date | str, datetime.date(2026, 1, 2)),
        (Kind | Place, Place(x=1)),
        (Literal[1, 2], 2),
        (None | Place | Person, None),
        (list[Place] | str, [Place(x=1)]),
        (list[Place] | str, "x"),
    ],
)
def test_what_is_no_record_is_wrapped_in_one(type_: Any, value: Any) -> None:
    """An agent may take and return anything that has an Avro form."""
    shape = shape_of(type_, name="Wrapped")
    assert shape.schema["type"] == "record"
    assert again(shape, value) == value


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        (object, "has no Avro form"),
        (list, "a list must say of what"),
        (dict, "has no Avro form|dict"),
        (dict[int, str], "of dicts only dict"),
        (tuple[int, str], "of tuples only tuple"),
        (Literal["a", 1], "a Literal's values"),
        (list[str] | list[int], "look the same"),
        (int | datetime.datetime, "look the same"),
        (decimal.Decimal, "has no Avro form"),
        (complex, "has no Avro form"),
        (Any, "has no Avro form"),
        (TypeVar("T"), "has no Avro form"),
    ],
)
def test_what_has_no_avro_form_is_refused_when_the_app_is_built(type_: Any, words: str) -> None:
    """The message names the place."""
    with pytest.raises(SettingsError, match=words):
        shape_of(type_, name="Refused")


def test_the_field_is_named_in_refusals() -> None:
    """Down to the field of a field."""
    with pytest.raises(SettingsError, match=r"inner\[\]\.odd"):
        shape_of(Outer)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (decimal.Decimal("1.23456"), "more than 4 digits after the point"),
        (decimal.Decimal("123456789012345678"), "more than 18 digits"),
        ("text", "Wrapped"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_not_rounded(value: Any, words: str) -> None:
    """Money is exact or refused."""
    with pytest.raises(PoisonError, match=words) as refused:
        shape_of(Money, name="Wrapped").encode(value)
    assert refused.value.code == "invalid-value"


def test_a_time_without_a_zone_is_refused() -> None:
    """It would be another moment on another machine."""
    with pytest.raises(PoisonError, match="has no time zone"):
        shape_of(datetime.datetime, name="Moment").encode(datetime.datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_a_member_that_no_union_has_is_refused() -> None:
    """Both ways."""
    shape = shape_of(Place | Person, name="Either")
    with pytest.raises(PoisonError, match="Either: "):
        shape.encode(7)
    inside = shape_of(Everything)
    wrong = EVERYTHING.model_copy(update={"either": 7})
    with pytest.raises(PoisonError, match="int is no member of the union"):
        inside.encode(wrong)


def test_json_that_does_not_fit_is_named_by_its_field() -> None:
    """What a person typed is answered with where it is wrong."""
    with pytest.raises(PoisonError, match=r"Places: 0\.x should be a valid ") as refused:
        shape_of(list[Place], name="Places").from_json('[{"x": "far"}]')
    assert refused.value.code == "invalid-json"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("42", "Claim: it should be an object with customer, amount, note"),
        ("{}", "Claim: customer is missing"),
        ('{"customer": "kim", "amount": "x"}', "Claim: amount should be a valid integer"),
        ('{"customer": "kim", "amount": -1}', "Claim: amount: nobody is owed that"),
        ("{", "Claim: Invalid JSON: "),
    ],
)
def test_json_that_does_not_fit_is_answered_in_our_words(given: str, words: str) -> None:
    """Of a whole that is no object, with what one has in it."""

    @pydantic.dataclasses.dataclass
    class Claim:
        customer: str
        amount: int
        note: str = ""

        @pydantic.field_validator("amount")
        @classmethod
        def owed(cls, value: int) -> int:
            if value < 0:
                raise ValueError("nobody is owed that")
            return value

    with pytest.raises(PoisonError) as refused:
        shape_of(Claim, name="Claim").from_json(given)
    assert words in str(refused.value)
    with pytest.raises(PoisonError, match=r"it should be an object$"):
        shape_of(dict[str, int], name="Amounts").from_json("42")


def test_a_datum_that_breaks_the_types_rules_is_refused() -> None:
    """Avro knows no ranges; the type does."""

    class Small(pydantic.BaseModel):
        number: int = pydantic.Field(lt=10)

    class Free(pydantic.BaseModel):
        number: int

    schema = shape_of(Small)
    data = Schemas()
    own = data.add(shape_of(Free).schema | {"name": "Small"})
    body = frames.write(parsing.parse(shape_of(Free).schema), {"number": 50})
    with pytest.raises(PoisonError, match="number should be less than 10") as refused:
        schema.decode(frames.SINGLE + own + body, data)
    assert refused.value.code == "invalid-value"


def test_an_older_writer_is_read_with_defaults() -> None:
    """A field that the writer did not have gets the default of the type today."""

    class V1(pydantic.BaseModel):
        x: int

    class V2(pydantic.BaseModel):
        x: int
        y: str = "new"
        z: list[int] = [1]

    schemas = Schemas()
    older = shape_of(V1).schema | {"name": "V2"}
    own = schemas.add(older)
    body = frames.write(parsing.parse(older), {"x": 7})
    assert shape_of(V2).decode(frames.SINGLE + own + body, schemas) == V2(x=7)


def test_equal_values_have_equal_digests() -> None:
    """Deduplication compares the datum, not its bytes on the wire."""
    shape = shape_of(Place)
    assert shape.digest_of(Place(x=1)) == shape.digest_of(Place(x=1, y=0.5))
    assert shape.digest_of(Place(x=1)) != shape.digest_of(Place(x=2))


class Notes(pydantic.BaseModel):
    by: dict[str, int] = {}
    note: Json = None
    more: dict[str, int] | int = 0
    place: Place | int = 0
    texts: list[Json] = []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"by": {"a": 1, "b": 2}}, {"by": {"b": 2, "a": 1}}),
        ({"note": {"a": [{"b": 1, "c": 2}]}}, {"note": {"a": [{"c": 2, "b": 1}]}}),
        ({"more": {"a": 1, "b": 2}}, {"more": {"b": 2, "a": 1}}),
        ({"texts": [{"a": 1, "b": 2}]}, {"texts": [{"b": 2, "a": 1}]}),
    ],
)
def test_the_order_of_keys_makes_no_other_datum(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A task sent again by a producer whose maps have no order is the same task, not a conflict."""
    shape = shape_of(Notes)
    first, second = (Notes.model_validate(of) for of in (one, other))
    assert shape.encode(first) != shape.encode(second)
    assert shape.digest_of(first) == shape.digest_of(second)
    assert shape.digest_of(first) != shape.digest_of(Notes(place=Place(x=1)))


def test_no_json_is_jsons_null() -> None:
    """A field of any JSON is text in Avro, so its default is too."""
    assert shape_of(Notes).schema["fields"][1] == {
        "name": "note",
        "type": "string",
        "default": "null",
    }
    assert again(shape_of(Notes), Notes()) == Notes()


class Wrong(pydantic.BaseModel):
    amount: int = None  # type: ignore[assignment]  # the point: pydantic does not look at defaults


def test_a_default_that_does_not_fit_is_named() -> None:
    """It would be found by the first reader of an older record."""
    with pytest.raises(SettingsError, match=r"Wrong.amount: its default None does not fit"):
        shape_of(Wrong)


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text", ["[" * 65 + "]" * 65, "[" * 200_000, '{"a":' * 65 + "1" + "}" * 65]
)
def test_json_that_nests_too_deep_is_poison(text: str) -> None:
    """Python gives up at a depth that depends on its caller, with an error that would stop a worker."""
    schema = {
        "type": "record",
        "name": "Value",
        "namespace": "headwater",
        "fields": [{"name": "value", "type": "string"}],
    }
    schemas = Schemas()
    own = schemas.add(schema)
    data = frames.SINGLE + own + frames.write(parsing.parse(schema), {"value": text})
    with pytest.raises(PoisonError, match="nests over 64") as refused:
        shape_of(Json, name="Value").decode(data, schemas)
    assert refused.value.code == "invalid-value"


@pytest.mark.parametrize("value", [nested(65), nested(100_000), {"a": nested(64)}])
def test_json_that_nests_too_deep_is_never_written(value: Any) -> None:
    """What could be written but not read would be lost."""
    with pytest.raises(ValueError, match="nests over 64"):
        json_text.dump(value)


@pytest.mark.parametrize(
    "value", [nested(64), [nested(63)] * 100, {"a": [{"b": 1}] * 100}, "[" * 99]
)
def test_json_within_the_bound_survives(value: Any) -> None:
    """Depth is what is bounded: neither width nor brackets in text."""
    assert json_text.load(json_text.dump(value)) == value


class Odd(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def check(cls, value: str) -> str:
        return str(1 / len(value))


def test_a_validator_that_breaks_refuses_its_record() -> None:
    """A type's author checks foreign bytes; an error there is the record's, and stops no worker."""
    shape, schemas = shape_of(Odd), Schemas()
    data = shape.encode(Odd.model_construct(text=""))
    with pytest.raises(PoisonError, match="ZeroDivisionError: division") as refused:
        shape.decode(data, schemas)
    assert refused.value.code == "invalid-value"
    with pytest.raises(PoisonError, match="ZeroDivisionError: division") as refused:
        shape.from_json('{"text": ""}')
    assert refused.value.code == "invalid-json"
    with pytest.raises(ZeroDivisionError):  # among ourselves it is our bug, and must not be hidden
        shape.decode(data, schemas, trusted=True)


def test_a_message_that_is_none_of_ours_is_poison() -> None:
    """By its frame, its schema, or its name."""
    schemas = Schemas()
    codec = Codec(schemas)
    for data, code in (
        (b"plain", "wrong-magic"),
        (frames.SINGLE + b"12345678", "unknown-schema"),
        (shape_of(Place).encode(Place(x=1)), "unknown-message"),
    ):
        schemas.add(shape_of(Place).schema)
        with pytest.raises(PoisonError) as refused:
            codec.decode(data)
        assert refused.value.code == code


def test_a_schema_that_is_no_record_is_no_message() -> None:
    """A writer's schema may be any Avro; ours are records."""
    schemas = Schemas()
    own = schemas.add('"string"')
    with pytest.raises(PoisonError, match="string is no message") as refused:
        Codec(schemas).decode(frames.SINGLE + own + b"\x00")
    assert refused.value.code == "unknown-message"


def test_an_older_version_of_a_message_is_read() -> None:
    """Neighbouring versions run side by side during a deploy."""
    schemas = Schemas()
    codec = Codec(schemas)
    older = shape_of(Closed).schema
    older = older | {"fields": older["fields"][:1]}
    own = schemas.add(older)
    body = frames.write(parsing.parse(older), {"slot": "s"})
    assert codec.decode(frames.SINGLE + own + body) == Closed(slot="s")


def test_a_schema_may_be_learnt_as_text() -> None:
    """As the topic of schemas and a registry have it."""
    schemas = Schemas()
    own = schemas.add('{"type": "record", "name": "T", "fields": []}')
    assert schemas.by_fingerprint(own)["name"] == "T"
    with pytest.raises(PoisonError, match="no registry is set"):
        schemas.by_id(1)


_INT = '"int"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type":' * 5_000 + _INT + "}" * 5_000, "nests over 200"),
        ("[" * 5_000 + _INT + "]" * 5_000, "nests over 200"),
        (_INT + " " * 300_000, "at most 262144"),
        ("[1, 2", "no Avro"),
        ("17", "no Avro"),
        ('{"type": "record"}', "no Avro"),
    ],
)
def test_hostile_text_is_no_schema(text: str, words: str) -> None:
    """A schema comes from others too: its size and depth are looked at before it is parsed."""
    with pytest.raises(PoisonError, match=words) as refused:
        Schemas().add(text)
    assert refused.value.code == "invalid-schema"


def test_a_schema_nests_as_deep_as_the_limit() -> None:
    """The limit refuses nothing below it."""
    depth = 200
    Schemas().add('{"type":"array","items":' * depth + _INT + "}" * depth)
    with pytest.raises(PoisonError, match="nests over"):
        Schemas().add('{"type":"array","items":' * (depth + 1) + _INT + "}" * (depth + 1))


class Texts:
    """A registry whose schemas are no schemas."""

    def by_id(self, schema_id: int) -> str:
        return "no json" if schema_id == 1 else '{"type": "nonsense"}'


@pytest.mark.parametrize("schema_id", [1, 2])
def test_a_schema_that_is_none_is_unknown(schema_id: int) -> None:
    """A registry's nonsense is poison for the record that names it, and for nothing else."""
    with pytest.raises(PoisonError) as refused:
        Schemas(Texts()).by_id(schema_id)
    assert refused.value.code == "unknown-schema"


def plain(type_: Any, written: str, datum: Any) -> Any:
    """Read what a producer wrote that knows Avro's types but not the logical ones."""
    shape = shape_of(type_, name="Plain")
    field = {"name": "value", "type": written}
    older = {**shape.schema, "fields": [field]}
    schemas = Schemas()
    own = schemas.add(older)
    body = frames.write(parsing.parse(older), {"value": datum})
    return shape.decode(frames.SINGLE + own + body, schemas)


def test_a_producer_without_logical_types_is_read() -> None:
    """The bytes are the same; so is the value."""
    assert plain(Money, "bytes", (123_400).to_bytes(3, "big")) == decimal.Decimal("12.34")
    assert plain(uuid.UUID, "string", str(uuid.UUID(int=7))) == uuid.UUID(int=7)


def test_a_value_that_its_logical_type_cannot_be_is_poison() -> None:
    """Text that is no UUID stops the record, not the worker."""
    with pytest.raises(PoisonError) as refused:
        plain(uuid.UUID, "string", "no uuid")
    assert refused.value.code == "undecodable"


@dataclasses.dataclass(frozen=True)
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


def test_a_value_that_its_own_type_refuses_is_poison() -> None:
    """A dataclass may have rules of its own; what breaks them stops the record, not the worker."""
    shape = shape_of(Even)
    body = frames.write(parsing.parse(shape.schema), {"number": 3})
    with pytest.raises(PoisonError, match="odd") as refused:
        shape.decode(frames.SINGLE + shape.fingerprint + body, Schemas())
    assert refused.value.code == "invalid-value"


_NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Kind | int, Kind.HOME),
        (Kind | int, 3),
        (list[Kind] | datetime.datetime, _NOON),
        (list[Kind] | datetime.datetime, [Kind.CAR]),
        (bytes | list[Kind], b"x"),
        (datetime.date | datetime.datetime, _NOON),
        (datetime.datetime | datetime.date, _NOON.date()),
        (Even | int, Even(2)),
        (int | float, 3.5),
        (bool | int, True),
        (Literal["a", "b"] | int, "b"),
    ],
)
def test_a_member_of_a_union_comes_back_as_itself(type_: Any, value: Any) -> None:
    """The member is found by what was read, not by the order in which the type names them."""
    holder = dataclasses.make_dataclass("Holder", [("value", type_)])
    found = again(shape_of(holder), holder(value)).value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("type_", [Kind | str, Even | dict[str, int], headwater.Json | int])
def test_members_that_read_the_same_are_refused(type_: Any) -> None:
    """A symbol and text are both text once they are read."""
    holder = dataclasses.make_dataclass("Holder", [("value", type_)])
    with pytest.raises(SettingsError, match=r"Holder\.value"):
        shape_of(holder)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"count": 1.5}, r"Strict\.count"),
        ({"count": 2**64}, r"Strict\.count"),
        ({"word": "c"}, r"'c' is none of \['a', 'b'\]"),
        ({"word": "c"}, r"Strict\.word"),
        ({"text": "\ud800"}, r"Strict\.text"),
        ({"text": 5}, r"Strict\.text"),
    ],
)
def test_a_value_that_cannot_be_written_is_named_by_its_field(
    value: dict[str, Any], words: str
) -> None:
    """A float is not cut down to an int, and every refusal says where."""
    shape = shape_of(Strict, namespace="bank")
    with pytest.raises(PoisonError, match=words):
        shape.encode(Strict(**value))
    assert again(shape, Strict()) == Strict()


@dataclasses.dataclass
class Strict:
    count: int = 1
    word: Literal["a", "b"] = "a"
    text: str = ""


def test_a_foreign_word_of_a_literal_is_refused() -> None:
    """Avro says text; the type says which."""
    shape = shape_of(Strict, namespace="bank")
    body = frames.write(parsing.parse(shape.schema), {"count": 1, "word": "zz", "text": ""})
    with pytest.raises(PoisonError, match="'zz' is none of"):
        shape.decode(frames.SINGLE + shape.fingerprint + body, Schemas())


def test_what_is_no_value_at_all_is_refused() -> None:
    """Nobody's field is at fault then."""
    with pytest.raises(PoisonError, match=r"^Strict|^bank\.Strict"):
        shape_of(Strict, namespace="bank").encode(object())  # as a caller without types may
    parameters = shape_of_parameters([("n", int, ...)], name="Tool")
    with pytest.raises(PoisonError, match="n"):
        parameters.encode({"n": "many"})


class Aliased(pydantic.BaseModel):
    card: str = pydantic.Field(alias="cardNumber")


def test_an_alias_is_the_jsons_and_the_name_avros() -> None:
    """Both doors of one type."""
    shape = shape_of(Aliased)
    value = shape.from_json(b'{"cardNumber": "c"}')
    assert again(shape, value) == value
    assert shape.schema["fields"][0]["name"] == "card"


def test_names_that_avro_cannot_have_are_refused() -> None:
    """When the app is built, and naming the field, not when the first record is written."""
    with pytest.raises(SettingsError, match=r"Holder\.größe"):
        shape_of(dataclasses.make_dataclass("Holder", [("größe", int)]))
    with pytest.raises(SettingsError, match=r"Size\.groß"):
        shape_of(list[enum.Enum("Size", "klein groß")])
    one = dataclasses.make_dataclass("Same", [("a", int)])
    two = dataclasses.make_dataclass("Same", [("b", int)])
    with pytest.raises(SettingsError, match="same name in Avro"):
        shape_of(dataclasses.make_dataclass("Both", [("one", one), ("two", two)]))


def test_an_int_over_64_bits_is_refused_by_its_field_and_size() -> None:
    """In words of Python, whether it is a value, a field or a parameter."""

    @dataclasses.dataclass
    class Order:
        cents: int

    with pytest.raises(PoisonError, match=r"Order\.cents: an int of 71 bits .* is over 64 bits"):
        shape_of(Order).encode(Order(2**70))
    parameters = shape_of_parameters([("n", int, ...)], name="Look", namespace="shop")
    with pytest.raises(PoisonError, match=r"Look\.n: an int of 71 bits"):
        parameters.encode({"n": -(2**70)})
    assert shape_of(int).encode(-(2**63))
    with pytest.raises(PoisonError, match=r"^IntValue: an int|^\w+: an int of 64 bits"):
        shape_of(int).encode(2**63)
