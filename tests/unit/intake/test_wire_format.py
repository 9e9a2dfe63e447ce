"""Tasks in Confluent's wire format, from a producer's registry to the outcome."""

from __future__ import annotations

import dataclasses

import pytest

import headwater
import headwater.testing
from headwater.contracts import frames, parsing, registry
from headwater.contracts.derive import shape_of
from headwater.errors import PoisonError, TransientError


@dataclasses.dataclass
class Claim:
    id: str
    amount: int = 5


app = headwater.App("wire")


@app.agent
async def double(ctx: headwater.Context, claim: Claim) -> str:
    """Answer with twice the amount."""
    return f"{claim.id}: {claim.amount * 2}"


_OLD = {"type": "record", "name": "Claim", "fields": [{"name": "id", "type": "string"}]}
"""A producer's schema from before there was an amount."""


def framed(number: int) -> bytes:
    """Return what a producer's Confluent serialiser writes: zero, the id, the datum."""
    return b"\x00" + number.to_bytes(4, "big") + frames.write(parsing.parse(_OLD), {"id": "c-1"})


@pytest.mark.anyio
async def test_a_task_in_the_wire_format_runs() -> None:
    """Intake and the run itself find the producer's schema by its id."""
    found = registry.connect("mock://wire")
    number = found.register("wire.cmd.double.v1-value", _OLD)
    app.schemas.connect(found)
    async with headwater.testing.App(app) as t:
        await t.publish(double, framed(number), headers=(("ce_tenantid", b"default"),))
        await t.settle()
        ((kind, value),) = t.outcomes(double.name, t.life()[-1].run)
        assert kind.endswith(".completed")
        assert double.output.decode(value, app.schemas) == "c-1: 10"
        assert not t.quarantined(double)


@pytest.mark.anyio
async def test_a_task_of_a_schema_that_nobody_registered_is_quarantined() -> None:
    """Byte for byte, as `unknown-schema`."""
    app.schemas.connect(registry.connect("mock://empty"))
    async with headwater.testing.App(app) as t:
        await t.publish(double, framed(4_711), headers=(("ce_tenantid", b"default"),))
        await t.settle()
        (kept,) = t.quarantined(double)
        assert kept.value == framed(4_711)
        assert kept.header("error.type") == b"unknown-schema"


def test_a_registry_that_is_away_is_no_poison() -> None:
    """The record waits: waiting helps, and quarantine would not."""
    shape, schemas = shape_of(Claim), app.schemas
    schemas.connect(registry.connect("http://127.0.0.1:9"))
    with pytest.raises(TransientError):
        shape.decode(framed(88), schemas)
    with pytest.raises(PoisonError):
        shape.decode(b"\x01" + framed(88), schemas)
