"""What headwater itself writes is recorded in the namespace, so that another version of it reads that."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib

import fastavro
import pytest

import headwater
from headwater import namespace
from headwater.assembly import Parts, Platform
from headwater.contracts import frames, parsing, published
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.derive import shape_of
from headwater.contracts.messages import Limits, Start, Task
from headwater.durable import confine
from headwater.errors import PoisonError
from headwater.runs.rows import Opened

_SCHEMAS = pathlib.Path(__file__).parents[3] / "schemas"


def recorded() -> Schemas:
    """Return what a process learns from a fresh namespace's control topics, and nothing of its own."""
    app = headwater.App("bank")

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    async def main() -> Schemas:
        log = await namespace.local(app)
        platform = Platform(app, log, Parts(clock=confine.wall_ms))
        found = Schemas()
        for record in namespace.recorded_schemas(platform):
            found.add(record.schema)
        return found

    return asyncio.run(main())


def test_every_schema_of_headwaters_own_is_recorded() -> None:
    """A process of another version knows what this one writes, without its code."""
    known = recorded()
    shapes = namespace.shipped()
    assert len(shapes) > 30
    assert [one.name for one in shapes if not known.knows(one.fingerprint)] == []
    assert not Schemas().knows(shapes[0].fingerprint)


def test_a_row_of_an_earlier_version_is_read_wherever_nobody_recorded_its_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it did not have yet is as it was by default; were its schema unknown, it would stop a restore."""
    opened = Opened(
        run="triage.0.t1",
        start=Start(run="triage.0.t1", task_id="t1", slot="s", task=Task(value=b"x")),
        tenant="t",
        actor="",
        correlation_id="c",
        causation_id="",
        traceparent=b"",
        deadline_ms=None,
        carried=(),
        limits=Limits(steps=3),
        started_ms=7,
    )
    old = json.loads((_SCHEMAS / "opened/v1.avsc").read_text(encoding="utf-8"))
    now = shape_of(Opened).schema
    datum = io.BytesIO(Codec(Schemas(), (Opened,)).encode(opened)[10:])
    row = fastavro.schemaless_reader(datum, fastavro.parse_schema(now), None)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(old), row)
    data = frames.SINGLE + parsing.fingerprint(old) + written.getvalue()
    assert Codec(Schemas(), (Opened,)).decode(data) == opened
    monkeypatch.setattr(published, "texts", tuple)
    with pytest.raises(PoisonError, match="no schema is known"):
        Codec(Schemas(), (Opened,)).decode(data)
