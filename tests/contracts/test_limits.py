"""Hostile bytes are refused before anything is made of them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.contracts import frames, limits, parsing
from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import shape_of
from headwater.errors import PoisonError

_NEST: dict[str, Any] = {
    "type": "record",
    "name": "Nest",
    "fields": [{"name": "inner", "type": ["null", "Nest"], "default": None}],
}
_NULLS: dict[str, Any] = {
    "type": "record",
    "name": "Nulls",
    "fields": [{"name": "all", "type": {"type": "array", "items": "null"}}],
}
_ALL: dict[str, Any] = {
    "type": "record",
    "name": "All",
    "namespace": "hw",
    "fields": [
        {"name": "flag", "type": "boolean"},
        {"name": "count", "type": "long"},
        {"name": "small", "type": "int"},
        {"name": "share", "type": "double"},
        {"name": "part", "type": "float"},
        {"name": "text", "type": "string"},
        {"name": "data", "type": "bytes"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 4}},
        {"name": "again", "type": "hw.Kind"},
        {"name": "names", "type": {"type": "array", "items": "string"}},
        {"name": "by", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "none", "type": "null"},
        {"name": "next", "type": ["null", "hw.All"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}


def varint(number: int) -> bytes:
    """Return a zigzag varint."""
    value, out = (number << 1) ^ (number >> 63), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read(data: bytes, schema: Any, *, trusted: bool = False) -> Any:
    """Read a datum as a message would be read."""
    schemas = Schemas()
    own = schemas.add(schema)
    parsed = schemas.by_fingerprint(own)
    return frames.read(frames.SINGLE + own + data, parsed, own, schemas, trusted=trusted)


def refusal(data: bytes, schema: Any) -> str:
    """Return the class of the refusal, or nothing."""
    try:
        read(data, schema)
    except PoisonError as error:
        return error.code
    return ""


def test_a_datum_that_nests_too_deep_is_refused() -> None:
    """Ten thousand levels in 10,001 bytes."""
    with pytest.raises(PoisonError, match="nests over 64") as refused:
        read(b"\x02" * 10_000 + b"\x00", _NEST)
    assert refused.value.code == "too-deep"


def test_lists_of_lists_nest_too() -> None:
    """A record in its own list, and a list in a list in a list."""
    inside = {
        "type": "record",
        "name": "Lists",
        "fields": [{"name": "all", "type": {"type": "array", "items": "Lists"}}],
    }
    assert refusal(b"\x02" * 500 + b"\x00" * 500, inside) == "too-deep"
    lists: Any = "int"
    for _ in range(70):
        lists = {"type": "array", "items": lists}
    deep = {"type": "record", "name": "Deep", "fields": [{"name": "all", "type": lists}]}
    assert refusal(b"\x02" * 71 + b"\x00" * 70, deep) == "too-deep"


def test_what_takes_no_bytes_is_counted_wherever_it_stands() -> None:
    """A thousand items of a thousand nulls each are a million values in three bytes."""
    fields = [{"name": f"n{number}", "type": "null"} for number in range(1_000)]
    inner: dict[str, Any] = {"type": "record", "name": "Wide", "fields": fields}
    empty: dict[str, Any] = {"type": "record", "name": "Empty", "fields": []}
    fixed: dict[str, Any] = {"type": "fixed", "name": "None", "size": 0}
    for items, count in ((inner, 1_000), (empty, 60_000), (fixed, 60_000)):
        schema = {**_NULLS, "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
        assert refusal(varint(count) + b"\x00", schema) == "too-many-items"
        assert refusal(varint(10) + b"\x00", schema) == ""


def doubling(levels: int) -> dict[str, Any]:
    """Return records that each hold the one before twice: a datum of no bytes, 2 ** levels values."""
    leaf = {"type": "record", "name": "L0", "fields": [{"name": "n", "type": "null"}]}
    fields: list[dict[str, Any]] = [{"name": "f0", "type": leaf}]
    for level in range(1, levels + 1):
        parts = [{"name": part, "type": f"L{level - 1}"} for part in "ab"]
        fields.append(
            {"name": f"f{level}", "type": {"type": "record", "name": f"L{level}", "fields": parts}}
        )
    return {"type": "record", "name": "Doubling", "fields": fields}


def test_records_that_hold_records_twice_are_counted() -> None:
    """No list and no recursion is needed: sixty levels would never end."""
    assert refusal(b"", doubling(60)) == "too-many-items"
    assert refusal(b"", doubling(5)) == ""


def test_without_the_limit_no_bytes_become_many_records() -> None:
    """The control, with fewer levels than would hurt."""
    assert frames.write(parsing.parse(doubling(2)), read(b"", doubling(2))) == b""
    found = read(b"", doubling(17), trusted=True)["f17"]
    levels = 0
    while "a" in found:
        found, levels = found["a"], levels + 1
    assert levels == 17
    assert refusal(b"", doubling(17)) == "too-many-items"


def decimals(kind: dict[str, Any]) -> dict[str, Any]:
    """Return a record of one decimal."""
    logical = {**kind, "logicalType": "decimal", "precision": 18, "scale": 4}
    return {"type": "record", "name": "Money", "fields": [{"name": "d", "type": logical}]}


def test_a_decimal_of_many_digits_is_refused_before_they_are_counted() -> None:
    """Their cost grows with the square: half a megabyte takes longer than a session lasts."""
    schema = decimals({"type": "bytes"})
    assert refusal(varint(500_000) + b"\x7f" * 500_000, schema) == "too-large"
    assert refusal(varint(257) + b"\x00" * 257, schema) == "too-large"
    assert refusal(varint(8) + b"\x00" * 7 + b"\x05", schema) == ""
    assert refusal(varint(8) + b"\x00" * 7, schema) == "undecodable"
    with pytest.raises(PoisonError, match="a decimal of 257 bytes") as refused:
        Schemas().add(json.dumps(decimals({"type": "fixed", "name": "F", "size": 257})))
    assert refused.value.code == "invalid-schema"


def test_without_the_limit_a_long_decimal_is_read() -> None:
    """The control: the same zeros, one byte over the limit, are a number like any other."""
    schema = decimals({"type": "bytes"})
    assert read(varint(257) + b"\x00" * 257, schema, trusted=True) == {"d": 0}


def test_a_schema_whose_data_cannot_be_walked_is_none() -> None:
    """It is refused where it is learnt, not where its first record would stop a worker."""
    schema = {"type": "fixed", "name": "F", "size": "many"}
    with pytest.raises(PoisonError, match="no Avro") as refused:
        Schemas().add(json.dumps(schema))
    assert refused.value.code == "invalid-schema"


def test_without_the_limit_nesting_kills_the_process() -> None:
    """The control: the same 10,001 bytes, decoded without a look at them, end the process by a signal."""
    program = (
        "import io, resource, fastavro; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "s = fastavro.parse_schema("
        + repr(_NEST)
        + "); fastavro.schemaless_reader(io.BytesIO(b'\\x02' * 10_000 + b'\\x00'), s, None)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ran.returncode == -signal.SIGSEGV


def test_a_few_bytes_that_claim_many_items_are_refused() -> None:
    """Five bytes of `array<null>` would become hundreds of megabytes."""
    data = varint(50_000_000) + b"\x00"
    assert len(data) <= 5
    with pytest.raises(PoisonError, match="over 100000 items") as refused:
        read(data, _NULLS)
    assert refused.value.code == "too-many-items"


def test_without_the_limit_a_few_bytes_become_many_items() -> None:
    """The control, with fewer items than would hurt."""
    found = read(varint(200_000) + b"\x00", _NULLS, trusted=True)
    assert len(found["all"]) == 200_000


def test_items_are_counted_over_all_blocks() -> None:
    """Many small blocks, counted or sized, are no way around."""
    blocks = (varint(-60_000) + varint(1)) * 2
    with pytest.raises(PoisonError, match="items in all"):
        read(blocks + b"\x00", _NULLS)


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (_NULLS, b""),
        (_NULLS, b"\x80"),
        (_NULLS, b"\xff" * 11),
        (_NEST, b"\x06"),
        (_NEST, b"\x01"),
        (
            {**_NULLS, "fields": [{"name": "all", "type": {"type": "array", "items": "bytes"}}]},
            b"\x02\x14a",
        ),
        (
            {**_NULLS, "fields": [{"name": "all", "type": {"type": "map", "values": "int"}}]},
            b"\x02\x03",
        ),
    ],
)
def test_a_datum_that_lies_about_its_length_is_refused(schema: Any, data: bytes) -> None:
    """Ends early, an endless number, a member no union has, a value longer than what is left."""
    with pytest.raises(PoisonError) as refused:
        read(data, schema)
    assert refused.value.code == "undecodable"


@st.composite
def alls(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    """Draw a datum of everything Avro has."""
    return {
        "flag": draw(st.booleans()),
        "count": draw(st.integers(-(2**63), 2**63 - 1)),
        "small": draw(st.integers(-(2**31), 2**31 - 1)),
        "share": draw(st.floats(allow_nan=False)),
        "part": 0.5,
        "text": draw(st.text(max_size=20)),
        "data": draw(st.binary(max_size=20)),
        "kind": "B",
        "sum": b"abcd",
        "again": "A",
        "names": draw(st.lists(st.text(max_size=5), max_size=3)),
        "by": draw(st.dictionaries(st.text(max_size=3), st.none() | st.integers(0, 9), max_size=3)),
        "none": None,
        "next": draw(alls(depth + 1)) if depth < 3 and draw(st.booleans()) else None,
        "at": 5,
    }


@settings(max_examples=60, deadline=None)
@given(alls())
def test_a_walk_ends_exactly_where_decoding_does(datum: dict[str, Any]) -> None:
    """Whatever a writer may write within the limits is passed, to its last byte."""
    schema = fastavro.parse_schema(_ALL)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, datum)
    limits.check(out.getvalue(), schema)
    with pytest.raises(PoisonError):
        limits.check(out.getvalue()[:-1], schema)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_poison(data: bytes) -> None:
    """Nothing else ever comes of bytes, so nothing else can stop a worker."""
    assert refusal(data, _ALL) in {"", "undecodable", "too-deep", "too-many-items"}


def test_a_flat_type_is_not_walked() -> None:
    """What can neither nest nor repeat costs nothing: a schema without both has no walk."""
    assert limits._walk_of(shape_of(str, name="Flat")._parsed) is None
    assert limits._walk_of(shape_of(list[str], name="Long")._parsed) is not None


def test_known_schemas_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer of ever new schemas fills no memory."""
    monkeypatch.setattr(limits, "_SCHEMAS_MAX", 3)
    monkeypatch.setattr(limits, "_known", {})
    for _ in range(10):
        limits.check(b"", fastavro.parse_schema({"type": "null"}))
    assert len(limits._known) <= 3
