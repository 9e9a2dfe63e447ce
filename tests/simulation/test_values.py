"""The simulated fleet with every value by reference: the same storms, and nothing is lost or doubled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from headwater.assembly import Parts
from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.runtime.restoring import Inline
from headwater.runtime.values import Puts
from headwater.testing import seeded
from headwater.testing.seeded_fleet import Fleet

SEEDS = 12
STORES: list[Store] = []


@pytest.fixture(autouse=True)
def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store for each world, and a bound that no value keeps."""
    STORES.clear()
    real = Fleet._parts
    stores: dict[int, Keeping] = {}

    def parts(self: Fleet, clock: Callable[[], int], instance: str) -> Parts:
        blobs = stores.get(id(self))
        if blobs is None:
            STORES.append(Store.at("memory:///", namespace="sim"))
            blobs = Keeping(STORES[-1], inline_bytes_max=-1, executor=Inline())
            stores[id(self)] = blobs
        return dataclasses.replace(real(self, clock, instance), blobs=blobs)

    monkeypatch.setattr(Fleet, "_parts", parts)


def different() -> int:
    worlds = (seeded.judge(seed, seeded.SOUND, build=seeded.fleet) for seed in range(SEEDS))
    return sum(bool(verdict.problem) for verdict in worlds)


@pytest.mark.slow
def test_storms_change_nothing_when_every_value_goes_by_reference() -> None:
    """Crashes, rivals and unknown commits between store and log, with agents, tools and children."""
    assert different() == 0
    assert sum(1 for store in STORES for _ in store.scan()) > 10 * SEEDS


@pytest.mark.slow
def test_control_without_puts_storms_and_calm_runs_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What deciders send refers to nothing: runs fail that succeed with the protection."""
    monkeypatch.setattr(Puts, "begin", lambda self, blobs, turn: None)
    assert different() > 0
