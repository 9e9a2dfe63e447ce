"""A fleet as one of its processes sees it: who has which version, and what operators said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import headwater
from headwater import namespace
from headwater.assembly import Parts, Platform
from headwater.contracts.ctl import SchemaRecord, VersionRecord
from headwater.contracts.records import Draft
from headwater.errors import SettingsError, TransientError
from headwater.fleet import Fleet, Following, Present, present, tag


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def platform_of(version: str = "1.0", name: str = "bank", **more: Any) -> Platform:
    app = headwater.App(name, version=version)

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    if more.get("extra"):

        @app.tool(effect="read")
        async def look(card: str) -> str:
            return card

    log = more.get("log") or asyncio.run(namespace.local(app))
    return Platform(app, log, Parts(clock=lambda: 0, instance=more.get("instance", "i0")))


def said(at: Platform, version: str, state: Any, **more: Any) -> None:
    record = VersionRecord(
        version=version, state=state, actor="ana", reason="it pays twice", **more
    )
    asyncio.run(namespace.say(at, record))


def test_version_is_gone_once_nobody_had_it_for_a_while():
    """All of which somebody looked: a process that has just begun does not know."""
    clock = Clock()
    fleet = Fleet(gone_s=60, clock_s=clock)
    fleet.saw({"1.0", "2.0"})
    assert fleet.versions().lately is None
    clock.now_s = 59
    fleet.saw({"1.0"})
    assert fleet.versions().lately is None
    clock.now_s = 60
    fleet.saw({"1.0"})
    assert fleet.versions().lately == {"1.0", "2.0"}
    clock.now_s = 61
    fleet.saw({"1.0"})
    assert fleet.versions().may_take("1.0", "2.0")
    fleet.saw({"2.0"})
    assert not fleet.versions().may_take("1.0", "2.0")


def test_who_could_not_look_does_not_know():
    """While the cluster did not answer, members may have come and gone."""
    clock = Clock()
    fleet = Fleet(gone_s=60, clock_s=clock)
    fleet.saw({"1.0"})
    clock.now_s = 60
    fleet.saw({"1.0"})
    assert fleet.versions().lately is not None
    fleet.missed()
    assert fleet.versions().lately is None
    clock.now_s = 119
    fleet.saw({"1.0"})
    assert fleet.versions().lately is None


def test_process_hears_what_operators_say_and_which_schemas_others_write():
    """A roll or a rollback needs no restart of who is there already."""
    platform = platform_of()
    fleet = Fleet()
    following = Following(platform, fleet)
    other = headwater.App("bank", version="2.0")

    @other.agent
    async def triage(ctx: headwater.Context, claim: dict[str, str]) -> str:
        return str(claim)

    shape = other.agents["triage"].input
    record = SchemaRecord(name=shape.name, schema=json.dumps(shape.schema))
    said(platform, "2.0", "withdrawn")
    asyncio.run(
        platform.log.append(
            Draft(
                topic=platform.names.ctl("schemas"),
                key=shape.fingerprint,
                value=platform.codec.encode(record),
            )
        )
    )
    asyncio.run(
        platform.log.append(Draft(topic=platform.names.ctl("app"), key=b"x", value=b"rubbish"))
    )
    asyncio.run(platform.log.append(Draft(topic=platform.names.ctl("app"), key=b"x", value=None)))
    while following.step():
        pass
    assert fleet.versions().withdrawn == {"2.0"}
    assert platform.schemas.by_fingerprint(shape.fingerprint)
    said(platform, "2.0", "final")
    while following.step():
        pass
    assert not fleet.versions().withdrawn
    following.close()


def test_looking_goes_on_while_the_cluster_is_away(caplog):
    """It says so once, and knows less until it has looked for long enough again."""
    clock = Clock()
    fleet = Fleet(gone_s=0, clock_s=clock)
    answers: list[Any] = [
        ["hw.runs.a/me/1.0"],
        TransientError("away"),
        SettingsError("away"),
        ["hw.runs.a/me/2.0"],
    ]

    def members() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    following = Following(platform_of(instance="me"), fleet, members, look_s=1, clock_s=clock)
    known = []
    for _ in range(4):
        following.step()
        following.step()
        known.append(fleet.versions().lately)
        clock.now_s += 1
    assert known == [{"1.0"}, None, None, {"2.0"}]
    assert len([one for one in caplog.records if "nobody can see" in one.getMessage()]) == 1


def test_client_ids_carry_versions():
    """Whatever a version has in it; clients that are no members of ours have none."""
    ids = [f"hw.runs.a/i1/{tag('1.0+a/b')}", "hw.runs.a/i2", "rdkafka", "hw.runs.a/i3/2.0"]
    assert present(ids, {}) == [
        Present(instance="i1", version="1.0+a/b"),
        Present(instance="i3", version="2.0"),
    ]


def test_what_a_process_said_counts_before_its_client_id():
    """A broker keeps the id of the process before it; what is forgotten counts no more."""
    clock = Clock()
    fleet = Fleet(gone_s=0, clock_s=clock)
    platform = platform_of("2.0", instance="me")
    ids = ["hw.runs.a/me/1.0", "hw.runs.a/other/1.0"]
    following = Following(platform, fleet, lambda: ids, look_s=1, clock_s=clock)
    following.step()
    assert fleet.versions().lately == {"1.0"}
    asyncio.run(namespace.announce(platform))
    assert namespace.told_versions(platform) == {"me": "2.0"}
    clock.now_s += 1
    following.step()
    assert fleet.versions().lately == {"1.0", "2.0"}
    asyncio.run(namespace.forget(platform, ["me", "nobody"]))
    assert namespace.told_versions(platform) == {}
    clock.now_s += 1
    following.step()
    assert fleet.versions().lately == {"1.0"}
    following.close()


def test_who_does_not_see_itself_does_not_know_who_is_there():
    """Under KIP-848 nobody answers: later code that is there must not pass for gone."""
    clock = Clock()
    fleet = Fleet(gone_s=0, clock_s=clock)
    ids: list[str] = []
    platform = platform_of("1.0", instance="me")
    following = Following(platform, fleet, lambda: ids, look_s=1, clock_s=clock)
    following.step()
    assert not fleet.versions().may_take("1.0", "2.0")
    ids.append("hw.runs.a/other/1.0")
    clock.now_s += 1
    following.step()
    assert not fleet.versions().may_take("1.0", "2.0")
    ids.append("hw.runs.a/me/1.0")
    clock.now_s += 1
    following.step()
    assert fleet.versions().may_take("1.0", "2.0")
    following.close()


def test_another_version_of_the_app_may_join():
    """A rolling upgrade is two versions of one app at once."""
    platform = platform_of("1.0")
    namespace.check(platform_of("2.0", log=platform.log, extra=True))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "shop"}, "set HEADWATER_NAMESPACE"),
        ({"version": "1.0", "extra": True}, "give it a later version"),
    ],
)
def test_another_app_may_not_join(other, words):
    """Of another name, or with the same version and other tools."""
    platform = platform_of("1.0")
    with pytest.raises(SettingsError, match=words):
        namespace.check(platform_of(log=platform.log, **other))


@pytest.mark.parametrize(
    ("version", "state", "more", "words"),
    [
        ("1.0", "withdrawn", {}, "was taken back .ana said so: it pays twice."),
        ("1.1", "final", {}, "version 1.1 of the app is final"),
        ("1.0", "final", {"platform": "999"}, "headwater 999 is final here"),
        ("0.9", "withdrawn", {}, ""),
        ("1.1", "withdrawn", {}, ""),
        ("0.9", "final", {}, ""),
        ("1.0", "final", {"platform": "0.0.1"}, ""),
    ],
)
def test_versions_that_were_left_behind_do_not_join(version, state, more, words):
    """What was taken back does not come again, nor what comes before a final version."""
    platform = platform_of("1.0")
    said(platform, version, state, **more)
    if not words:
        namespace.check(platform)
        return
    with pytest.raises(SettingsError, match=words):
        namespace.check(platform)


def test_what_was_said_is_read_in_order_of_versions():
    """The newest word on each."""
    platform = platform_of()
    for version, state in (("1.10", "final"), ("1.9", "final"), ("1.10", "withdrawn")):
        said(platform, version, state)
    found = [(one.version, one.state) for one in namespace.version_records(platform)]
    assert found == [("1.9", "final"), ("1.10", "withdrawn")]
    there = namespace.app_record(platform)
    assert there is not None
    assert there.version == "1.0"
