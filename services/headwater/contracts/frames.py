"""Frames: Avro datums on the wire, in single-object encoding or Confluent's."""

from __future__ import annotations

import io
from typing import Any

import fastavro

from headwater.contracts import limits
from headwater.contracts.catalog import Schemas
from headwater.contracts.parsing import plain
from headwater.errors import PoisonError

SINGLE = b"\xc3\x01"
CONFLUENT = 0
_HEAD = 10
_CONFLUENT_HEAD = 5


def single(data: bytes, schemas: Schemas) -> bytes:
    """Return a value in single-object encoding, whichever frame it came in.

    Raises:
        PoisonError: The registry does not know its schema.
        TransientError: The registry is away.
    """
    if data[:1] != b"\x00" or len(data) < _CONFLUENT_HEAD:
        return data
    writer = plain(schemas.by_id(int.from_bytes(data[1:_CONFLUENT_HEAD], "big")))
    return SINGLE + schemas.add(writer) + data[_CONFLUENT_HEAD:]


def write(parsed: Any, datum: Any) -> bytes:
    """Return a datum's bytes."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, datum)
    return out.getvalue()


def read(
    data: bytes,
    reader: Any,
    reader_fingerprint: bytes,
    schemas: Schemas,
    *,
    trusted: bool = False,
) -> Any:
    """Return a framed datum, resolved to the reader's schema.

    Args:
        data: The frame and the datum.
        reader: The schema to read as, parsed.
        reader_fingerprint: Its fingerprint.
        schemas: Where the writer's schema is found.
        trusted: Whether a process of ours wrote it: then limits are not checked again.

    Raises:
        PoisonError: The frame or the datum cannot be read (`wrong-magic`, `undecodable`, `unknown-schema`),
            or is over a limit (`too-deep`, `too-many-items`, `too-large`).
        TransientError: The registry is away.
    """
    if data[:2] == SINGLE and len(data) >= _HEAD:
        own = data[2:_HEAD]
        writer = reader if own == reader_fingerprint else schemas.by_fingerprint(own)
        start = _HEAD
    elif data[:1] == b"\x00" and len(data) >= _CONFLUENT_HEAD:
        writer = schemas.by_id(int.from_bytes(data[1:_CONFLUENT_HEAD], "big"))
        start = _CONFLUENT_HEAD
    else:
        raise PoisonError("wrong-magic", "the value begins with neither C3 01 nor 00")
    body = io.BytesIO(data[start:])
    if not trusted:
        limits.check(data[start:], writer)
    try:
        datum = fastavro.schemaless_reader(
            body,
            writer,
            None if writer is reader else reader,
            return_record_name=True,
            return_record_name_override=True,
        )
    except Exception as error:
        raise PoisonError("undecodable", f"the datum cannot be read: {error}") from error
    if body.read(1):
        raise PoisonError("undecodable", "bytes are left after the datum")
    return datum
