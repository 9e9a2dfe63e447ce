"""`headwater run`: what it says before it joins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import headwater
from headwater import namespace
from headwater.assembly import Parts, Platform
from headwater.cli import run
from headwater.errors import SettingsError


class Cluster:
    """Members as a cluster would tell them."""

    def __init__(self, *client_ids: str, refuses: bool = False) -> None:
        self._client_ids = client_ids
        self._refuses = refuses

    def client_ids(self, groups: Iterable[str]) -> list[str]:
        """Return them."""
        if self._refuses:
            raise SettingsError("not allowed")
        return [*self._client_ids]


def platforms(*instances: str) -> list[Platform]:
    app = headwater.App("bank", version="2.0")
    log = asyncio.run(namespace.local(app))
    return [Platform(app, log, Parts(clock=lambda: 0, instance=one)) for one in instances]


def test_what_is_told_of_processes_that_have_gone_is_dropped():
    """Of those that are members nothing is, nor of who says it; who may not look drops nothing."""
    first, second, third = platforms("a", "b", "c")
    asyncio.run(run.say_version(Cluster(), first))
    asyncio.run(run.say_version(Cluster(refuses=True), second))
    assert namespace.told_versions(first) == {"a": "2.0", "b": "2.0"}
    asyncio.run(run.say_version(Cluster("bank.runs.x/b/1.0"), third))
    assert namespace.told_versions(first) == {"b": "2.0", "c": "2.0"}
