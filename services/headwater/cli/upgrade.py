"""`headwater upgrade`: which versions of the app are there, which is final, which is taken back."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import importlib.metadata
from collections.abc import Collection
from typing import Annotated, Literal

import typer

from headwater import fleet, namespace, provisioning
from headwater.assembly import Platform
from headwater.cli import options, shell, topics
from headwater.contracts.ctl import VersionRecord
from headwater.core.versions import in_order, is_later
from headwater.durable import confine
from headwater.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Finish or undo a rolling upgrade of the app.")

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="By default the one that was applied last.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]
Actor = Annotated[
    str, typer.Option("--actor", help="Who says so; by default the user of this shell.")
]


@app.command()
def show(app: shell.AppOption = "", output: shell.Output = shell.Format.TABLE) -> None:
    """Show the app's versions. Says who has them, and what was said of them."""
    with topics.opened(app) as (platform, _):
        there = _members(platform)
        said = {record.version: record for record in namespace.version_records(platform)}
        applied = namespace.app_record(platform)
    newest = "" if applied is None else applied.version
    rows = [
        {
            "version": version,
            "members": there.get(version, 0),
            "applied": version == newest,
            "state": said[version].state if version in said else "open",
            "actor": said[version].actor if version in said else "",
            "reason": said[version].reason if version in said else "",
        }
        for version in in_order({*there, *said, *filter(None, [newest])})
    ]
    if output is shell.Format.JSON:
        shell.document(rows)
        return
    shell.table(
        ["version", "members", "applied", "state", "by", "reason"],
        [(*list(row.values())[:2], "yes" if row["applied"] else "", *[*row.values()][3:]) for row in rows],
        keep=["version", "state"],
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What is said about which version, and how it is asked for and told."""

    version: Version = ""
    reason: Reason = ""
    actor: Actor = ""
    app: shell.AppOption = ""
    yes: shell.Yes = False
    dry_run: shell.DryRun = False
    output: shell.Output = shell.Format.TABLE

    def record(self, platform: Platform, state: Literal["final", "withdrawn"]) -> VersionRecord:
        """Return it as it is kept."""
        return VersionRecord(
            version=self.version or _applied(platform),
            state=state,
            platform=importlib.metadata.version("headwater") if state == "final" else "",
            actor=self.actor or shell.user(),
            reason=self.reason,
            at_ms=confine.wall_ms(),
        )


@app.command()
@options.gathered(Word)
def finalize(of: Word) -> None:
    """Make a version final. Processes of earlier ones, and of an earlier headwater, join no more."""
    with topics.opened(of.app) as (platform, _):
        record = of.record(platform, "final")
        there = _members(platform)
        if record.version not in there:
            raise shell.RefusedError(
                f"no member of the agents' groups has version {record.version}: roll it out first; "
                f"there are {_list(there)}"
            )
        old = in_order(one for one in there if is_later(record.version, one))
        left = f"; {_list(old)} is still running and cannot come back" if old else ""
        does = [
            f"no process of a version before {record.version} joins, nor one of a headwater before "
            f"{record.platform}",
            f"{record.version} cannot be taken back any more",
            *(
                f"{shell.count(there[one], 'member')} of {one} cannot come back after a restart"
                for one in old
            ),
        ]
        _say(platform, record, f"Make {record.version} final{left}?", of, does)


@app.command()
@options.gathered(Word)
def rollback(
    of: Word,
    *,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also a version that nobody here knows of.")
    ] = False,
) -> None:
    """Take a version back. Older code goes on with its held runs, and no process of it joins."""
    with topics.opened(of.app) as (platform, _):
        record = of.record(platform, "withdrawn")
        said = namespace.version_records(platform)
        final = [one for one in said if one.state == "final"]
        behind = [one.version for one in final if not is_later(record.version, one.version)]
        if behind:
            raise shell.RefusedError(
                f"version {behind[-1]} is final, so {record.version} cannot be taken back: publish a "
                "later version that undoes the change"
            )
        there = _members(platform)
        older = in_order(one for one in there if is_later(record.version, one))
        told = namespace.told_versions(platform).values()  # also of who has gone since
        known = {*there, *told, *(one.version for one in said), _applied(platform)}
        if not unknown and record.version not in known:
            raise _unknown(record.version, known)
        question = (
            f"Take version {record.version} back? Older code replays the runs that it wrote, and "
            "holds those that it does not understand."
        )
        does = [
            f"no process of {record.version} joins; it may be given again only as a later version",
            "older code replays the runs that it wrote, and holds those that it does not understand",
            *(
                [
                    f"{shell.count(there[record.version], 'member')} of {record.version} take runs until "
                    "their processes are stopped"
                ]
                if there[record.version]
                else []
            ),
            *(f"{shell.count(there[one], 'member')} of {one} would take its runs" for one in older),
            *(
                []
                if older
                else ["no member of an older version is there to take its runs: start one"]
            ),
        ]
        _say(platform, record, question, of, does)


def _unknown(version: str, known: Collection[str]) -> shell.RefusedError:
    return shell.RefusedError(
        f"nobody has version {version}, nor is it the one that was applied: known are "
        f"{_list([*known])}; if it is no typo, say --unknown",
        status=shell.WRONG_USAGE,
    )


def _say(
    platform: Platform, record: VersionRecord, question: str, of: Word, does: list[str]
) -> None:
    """Ask and write it; or, as a dry run, say what it says, where it would be, and what follows."""
    if not of.dry_run:
        shell.confirm(question, yes=of.yes)
        asyncio.run(namespace.say(platform, record))
    if of.output is shell.Format.JSON:
        shell.document({**dataclasses.asdict(record), "written": not of.dry_run, "follows": does})
        return
    if not of.dry_run:
        print(f"version {record.version} is {record.state}")
        if running := _members(platform)[record.version] if record.state == "withdrawn" else 0:
            members = f"{shell.count(running, 'member')} of {record.version}"
            shell.note(
                f"{members} still take runs: stop these processes, they do not end by themselves"
            )
        return
    why = f": {record.reason}" if record.reason else ""
    print(f"would write {record.version} as {record.state}, by {record.actor}{why}")
    print(f"to {platform.names.ctl('app')}; then")
    print("\n".join(f"- {one}" for one in does))


def _applied(platform: Platform) -> str:
    record = namespace.app_record(platform)
    if record is None:
        raise shell.RefusedError(
            f"{platform.names.ctl('app')} is empty: run `headwater topics apply`"
        )
    return record.version


def _members(platform: Platform) -> collections.Counter[str]:
    """Return how many members of the agents' groups have which version."""
    given = Settings.of().kafka
    cluster = provisioning.connect(given)
    newer = given.group_protocol == "consumer"  # should that end this command, it is given again
    clients = cluster.client_ids(platform.layout.agent_groups(), newer=newer)
    told = namespace.told_versions(platform)
    return collections.Counter(one.version for one in fleet.present(clients, told))


def _list(versions: collections.Counter[str] | list[str]) -> str:
    return ", ".join(in_order(versions)) or "none"
