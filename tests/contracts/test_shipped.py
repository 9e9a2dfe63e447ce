"""The published schemas are the types, and their golden examples are what goes over the wire.

`python -m tests.contracts.test_shipped` writes examples that are not there yet; `headwater schemas
export schemas --shipped` writes schemas. Neither changes a file that was published.
"""

from __future__ import annotations

import io
import json
import pathlib
from typing import Any

import fastavro
import pytest
from tests.contracts.golden import EXAMPLES

from headwater.assembly import ROWS
from headwater.cli.schemas import file_name, next_version
from headwater.contracts import compatibility, messages
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.derive import shape_of

_HOME = pathlib.Path(__file__).parents[2] / "schemas"
_HEAD = 10
PUBLISHED = (*messages.SHIPPED, *ROWS)
"""Messages, and rows: both outlive the version that wrote them."""


def home_of(kind: type) -> pathlib.Path:
    """Return a message's directory."""
    return _HOME / file_name(kind.__name__)


def avro_json(kind: type, encoded: bytes) -> Any:
    """Return a framed datum in Avro's own JSON encoding, as any language's library writes it."""
    schema = fastavro.parse_schema(shape_of(kind).schema)
    datum = fastavro.schemaless_reader(
        io.BytesIO(encoded[_HEAD:]), schema, None, return_record_name=True
    )
    out = io.StringIO()
    fastavro.json_writer(out, schema, [datum])
    return json.loads(out.getvalue())


def examples() -> list[tuple[pathlib.Path, Any]]:
    """Return where each example is kept, and the message."""
    seen: dict[type, int] = {}
    found = []
    for message in EXAMPLES:
        kind = type(message)
        seen[kind] = seen.get(kind, 0) + 1
        found.append((home_of(kind) / "examples" / f"v1-{seen[kind]}.json", message))
    return found


@pytest.fixture
def codec() -> Codec:
    return Codec(Schemas())


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.__name__)
def test_the_published_schema_is_the_types(kind: type) -> None:
    """A change of a type shows as a file that is missing: the next version, to be published."""
    assert next_version(home_of(kind), shape_of(kind).schema) is None


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.__name__)
def test_every_published_version_can_be_read_and_can_read(kind: type) -> None:
    """Processes of neighbouring versions run side by side during a deploy."""
    versions = [json.loads(path.read_text()) for path in home_of(kind).glob("v*.avsc")]
    assert versions
    assert compatibility.broken([shape_of(kind).schema], versions) == []


def test_every_message_has_an_example() -> None:
    """A message without one could change its bytes unseen."""
    assert {type(message) for message in EXAMPLES} == set(messages.SHIPPED)


@pytest.mark.parametrize(("path", "message"), examples(), ids=lambda of: getattr(of, "name", ""))
def test_examples_are_what_goes_over_the_wire(
    codec: Codec, path: pathlib.Path, message: Any
) -> None:
    """Bytes to message and back, and Avro's JSON of it, as published."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    encoded = bytes.fromhex(kept["hex"])
    assert codec.decode(encoded) == message
    assert codec.encode(message) == encoded
    assert avro_json(type(message), encoded) == kept["json"]


def test_a_schema_that_differs_becomes_the_next_version(tmp_path: pathlib.Path) -> None:
    """A published file is never written again."""
    schema = shape_of(messages.Closed).schema
    first = next_version(tmp_path, schema)
    assert first == tmp_path / "v1.avsc"
    first.write_text(json.dumps(schema))
    assert next_version(tmp_path, schema) is None
    assert next_version(tmp_path, {**schema, "doc": "changed"}) == tmp_path / "v2.avsc"


if __name__ == "__main__":
    for where, of in examples():
        if not where.exists():
            where.parent.mkdir(parents=True, exist_ok=True)
            data = Codec(Schemas()).encode(of)
            text = {"hex": data.hex(), "json": avro_json(type(of), data)}
            where.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
