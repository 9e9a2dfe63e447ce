"""What single tenants may have of the fleet: an operator's file, and what it comes to."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

import headwater
from headwater import testing
from headwater.admission.placement import Placement
from headwater.admission.quotas import Quotas
from headwater.core.messages import RunId
from headwater.errors import SettingsError
from headwater.settings import Loops, Settings
from headwater.tenancy import Tenancy, tenancy_of

FILE = """
version: 3
tenants:
  small: {runs_open_max: 1, partitions: 1}
  gold: {own: [1], weight: 4}
"""

app = headwater.App("shop")


@app.agent
async def wait(ctx: headwater.Context, what: str) -> str:
    return str(await ctx.receive("go"))


def read(directory: pathlib.Path, text: str, loops: Loops | None = None) -> Tenancy:
    file = directory / "tenants.yaml"
    file.write_text(text)
    return tenancy_of(file, loops or Loops())


def test_without_a_file_everybody_has_the_same():
    """What all may have is set; nobody is named."""
    found = tenancy_of(None, Loops(runs_open_max=7, calls_weights={"a": 2}))
    assert found == Tenancy(quotas=Quotas(default=7), placement=Placement(), weights={"a": 2})


def test_file_says_what_single_tenants_may_have(tmp_path: pathlib.Path):
    """What is left out is as for everybody; a weight of the file counts before the setting's."""
    found = read(tmp_path, FILE, Loops(runs_open_max=7, calls_weights={"gold": 2, "b": 5}))
    assert found.quotas == Quotas(version=3, default=7, of={"small": 1})
    assert found.placement == Placement(version=3, spread={"small": 1}, fixed={"gold": (1,)})
    assert found.weights == {"gold": 4, "b": 5}
    assert read(tmp_path, "").quotas == Quotas(default=10_000)
    assert read(tmp_path, '{"tenants": {"a": {"weight": 2}}}').weights == {"a": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tenants: {small: {runs_open_max: 0}}", "tenants.small.runs_open_max: "),
        ("tenants: {small: {runs: 4}}", "tenants.small.runs: "),
        ("tenants: {small: {partitions: 2, own: [1]}}", "tenants.small: own partitions, or over"),
        ("tenants: {a: {own: [1]}, b: {own: [0, 1]}}", "partition 1 is a's own already, not b's"),
        ("tenants: {a: {own: [-1]}}", "tenants.a.own.0: "),
        ("tenants: {Big Corp: {weight: 2}}", "tenants.Big Corp: a tenant is 1 to 64"),
        ("tenant: {}", "tenant: "),
        ("- small", "the file: "),
        ("tenants: {", "expected"),
    ],
)
def test_file_that_cannot_work_is_named_with_the_field(
    tmp_path: pathlib.Path, text: str, says: str
):
    """Nobody starts with half of what was meant."""
    with pytest.raises(SettingsError, match=r"^HEADWATER_TENANTS__FILE .*tenants\.yaml") as caught:
        read(tmp_path, text)
    assert says in str(caught.value)


def test_file_that_is_not_there_is_named(tmp_path: pathlib.Path):
    """So that a typo is no open door."""
    settings = Settings.of({"HEADWATER_TENANTS__FILE": str(tmp_path / "nowhere.yaml")})
    with pytest.raises(SettingsError, match=r"HEADWATER_TENANTS__FILE .*nowhere"):
        tenancy_of(settings.tenants.file, settings.loops)


def test_runs_go_where_the_file_says_and_no_more_than_it_allows(tmp_path: pathlib.Path):
    """A tenant over its own quota waits while others go on; nobody comes onto another's partition."""
    found = read(tmp_path, FILE)
    parts = {"quotas": found.quotas, "placement": found.placement}

    async def play() -> None:
        async with testing.App(app, partitions=3, parts=parts) as t:
            small = [await t.start(wait, "x", tenant="small") for _ in range(2)]
            gold = [await t.start(wait, "x", tenant="gold") for _ in range(5)]
            rest = [await t.start(wait, "x", tenant="other") for _ in range(20)]
            assert [run.status for run in small] == ["started", "held"]
            assert {_place(run.id) for run in gold} == {1}
            assert {_place(run.id) for run in rest} == {0, 2}
            await t.signal(small[0], "go")
            assert small[1].status == "started", "it goes on as soon as there is room"
            assert _place(small[0].id) == _place(small[1].id) != 1

    asyncio.run(play())


def _place(run: str) -> int:
    found = RunId.parse(run)
    assert found is not None, run
    return found.partition
