"""What `quarantine` and `dlq` share: filters, the operation under way, its summary, an editor."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import rich.console
import rich.progress
import typer

from headwater.cli import shell
from headwater.cli.gateway import Gateway, by, connect
from headwater.cli.runs import parse, seconds

Ids = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only this one; may be repeated.")
]
Tenant = Annotated[str, typer.Option(help="Only of this tenant.")]
Agent = Annotated[str, typer.Option(help="Only of this agent.")]
Error = Annotated[str, typer.Option(help="Only of this class, for example unknown-schema.")]
Since = Annotated[str, typer.Option(help="Only newer, for example 90s, 15m, 2h, 1d.")]
All = Annotated[bool, typer.Option("--all", help="All there are; else name some.")]
Rate = Annotated[str, typer.Option(help="At most so many a second, for example 50/s.")]
Again = Annotated[
    bool, typer.Option("--again", help="Also those to which something was done before.")
]
Edit = Annotated[bool, typer.Option("--edit", help="Change the one's value first, in $EDITOR.")]
OperationName = Annotated[
    str, typer.Option("--operation", help="Names the operation: the same name goes on with it.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with who did it.")]
RepeatWrites = Annotated[
    bool, typer.Option("--repeat-writes", help="Make calls that changed the world again.")
]

Records = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="As its list names it, or its run.")
]
Topic = Annotated[
    str, typer.Option(help="Only from this topic; or a topic of other systems' dead letters.")
]

_FILTERS = ("topic", "tenant", "agent", "since_ms")
_LISTED_MAX = 1_000
"""As many as a gateway lists at once."""
_LOOK_S = 0.1
_LOOK_S_MAX = 1.0
STILL_S = 20.0
"""How long an operation may stand still before the person is told."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which records are meant, as options say."""

    ids: Sequence[str] = ()
    topic: str = ""
    tenant: str = ""
    agent: str = ""
    error: str = ""
    since: str = ""

    def told(self) -> dict[str, Any]:
        """Return them as the gateway takes them."""
        found: dict[str, Any] = {
            "ids": [*self.ids],
            "topic": self.topic,
            "tenant": self.tenant,
            "agent": self.agent,
            "error": self.error,
        }
        if self.since:
            found["since_ms"] = shell.now_ms() - seconds(self.since, "--since") * 1_000
        return {name: value for name, value in found.items() if value}

    def need_some(self, *, all_: bool) -> None:
        """Refuse to take everything unless that was said.

        Raises:
            RefusedError: Nothing was named.
        """
        if not all_ and not self.told():
            raise shell.RefusedError(
                "which ones? Name some by ID, or by --agent, --tenant, --error or --since, or say --all",
                status=shell.WRONG_USAGE,
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted of which records, and how it is asked for and told."""

    chosen: Chosen
    all_: bool
    reason: str
    yes: bool
    dry_run: bool
    output: shell.Format

    def body(self, *, rate: str = "", **more: Any) -> dict[str, Any]:
        """Return it as the gateway takes it."""
        body = {
            **self.chosen.told(),
            "all": self.all_,
            "reason": self.reason,
            "dry_run": self.dry_run,
        }
        return body | {"rate": per_second(rate)} | more


def wanted(
    record: Records = None,
    *,
    topic: Topic = "",
    tenant: Tenant = "",
    agent: Agent = "",
    error: Error = "",
    since: Since = "",
    id: Ids = None,  # noqa: A002 - the option's name
    all_: All = False,
    reason: Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> Wanted:
    """Return what is wanted.

    Raises:
        RefusedError: No record is named, nor all are.
    """
    ids = [*(record or ()), *(id or ())]
    chosen = Chosen(ids=ids, topic=topic, tenant=tenant, agent=agent, error=error, since=since)
    chosen.need_some(all_=all_)
    return Wanted(chosen=chosen, all_=all_, reason=reason, yes=yes, dry_run=dry_run, output=output)


def _one(chosen: Chosen) -> str:
    """Return the one record that is meant.

    Raises:
        RefusedError: It is none, or several.
    """
    if len(chosen.ids) != 1:
        raise shell.RefusedError("--edit takes one ID", status=shell.WRONG_USAGE)
    return chosen.ids[0]


def listed(
    path: str,
    chosen: Chosen,
    limit: int,
    output: shell.Format,
    columns: Mapping[str, str],
    *,
    noun: str,
    empty: str,
) -> None:
    """List kept records, newest first."""
    told = chosen.told()
    params = {name: str(value) for name, value in told.items() if name != "ids"}
    with connect() as gateway:
        records = gateway.get(path, {**params, "limit": str(limit)})["records"]
        said = not records and note_classes(gateway, path, told, noun)
    if output is shell.Format.JSON:
        shell.document(records)
        return
    if not records:
        if not said:
            shell.note(f"no {noun} fits these options" if params else empty)
        return
    for of in records:  # the module before a class leaves no room for the class
        of["code"] = _class(of)
    shell.table(
        [*columns],
        [[of.get(name) for name in columns.values()] for of in records],
        keep=["id", "run", "class", "error"],
        text="message",
    )
    shell.note_more(len(records), limit)


def note_classes(
    gateway: Gateway, path: str, told: Mapping[str, Any], noun: str = "record"
) -> bool:
    """Say which classes there are, where one was asked for that no record has.

    Args:
        gateway: Where records are listed.
        path: The gateway's, of the list.
        told: What was asked for.
        noun: What a record is called.

    Returns:
        Whether anything was said: not where no record has a class at all.
    """
    if not told.get("error"):
        return False
    others = {name: str(value) for name, value in told.items() if name in _FILTERS}
    records = gateway.get(path, {**others, "limit": str(_LISTED_MAX)})["records"]
    classes = sorted({name for of in records if (name := _class(of))})
    asked = str(told["error"]).rpartition(".")[2]
    if not classes or asked in classes:
        return False
    near = shell.nearest(asked, classes)
    hint = f"did you mean {near!r}? There" if near else "there"
    shell.note(f"no {noun} has class {told['error']!r}: {hint} are: {', '.join(classes)}")
    return True


def _class(of: Mapping[str, Any]) -> str:
    return str(of.get("code") or "").rpartition(".")[2]


def shown(path: str, record: str, output: shell.Format) -> None:
    """Show one record: where it came from, why it is kept, what was done to it, and its bytes."""
    with connect() as gateway:
        found = gateway.get(f"{path}/{quote(record, safe='')}")
    if output is shell.Format.JSON:
        shell.document(found)
        return
    print(f"{found['id']}  {found.get('code')}")
    if found.get("at_ms"):
        print(f"at       {shell.at(found['at_ms'])}")
    print(f"from     {found.get('topic')}[{found.get('partition')}]@{found.get('offset')}")
    print(f"because  {found.get('message')}")
    if found.get("run"):
        print(f"run      {found['run']}, attempt {found.get('attempt')}")
    if found.get("writes"):
        print(f"writes   {found['writes']}")
    if found.get("done"):
        why = f": {found['done_reason']}" if found.get("done_reason") else ""
        at = f" at {shell.at(found['done_at_ms'])}" if found.get("done_at_ms") else ""
        print(f"done     {found['done']} by {found.get('done_by') or '?'}{at}{why}")
    if (found.get("deliveries") or 0) > 1:
        print(f"came     {found['deliveries']} times")
    for name, value in (found.get("headers") or {}).items():
        print(f"header   {name}: {_indented(value)}")
    print(f"key      {found.get('key')}\nvalue    {found.get('value')}")
    if found.get("decoded") is not None:
        print(f"decoded  {json.dumps(found['decoded'], ensure_ascii=False)}")


def _indented(value: str | None) -> str:
    """Return a text of several lines with each below the first, such as a stack trace."""
    lines = (value or "").splitlines()
    return "\n         ".join(["", *lines]) if len(lines) > 1 else value or ""


def per_second(text: str) -> float:
    """Read a rate such as `50/s` or `50`.

    Raises:
        RefusedError: It is none.
    """
    if not text:
        return 0.0
    try:
        found = float(text.removesuffix("/s"))
    except ValueError:
        found = 0.0
    if found <= 0:
        raise shell.RefusedError(
            f"--rate: {text!r} is no rate: write 50/s", status=shell.WRONG_USAGE
        )
    return found


def operate(path: str, of: Wanted, body: Mapping[str, Any], *, ask: str = "") -> None:
    """Have an operation done, follow it to its end, and say what came of it.

    Args:
        path: The gateway's.
        of: What is wanted, and how to print the summary.
        body: The same, as the gateway takes it.
        ask: The question, with `{n}` for how many; empty asks nothing.

    Raises:
        RefusedError: It failed, or the person said no.
    """
    with connect() as gateway:
        body = {**body, **by()}
        if ask and not of.yes and not of.dry_run:
            count = _followed(gateway, path, {**body, "dry_run": True})["done"]
            if count:
                shell.confirm(ask.format(n=count), yes=False)
        found = _followed(gateway, path, body)
        _tell(found, of.output)
        if found["state"] == "failed":
            raise shell.RefusedError(found["error"])
        if not found["done"] and not found["skipped"]:
            note_classes(gateway, path.rpartition("/")[0], body)
    _refuse_nothing(body.get("ids") or (), found)


def _refuse_nothing(ids: Sequence[str], found: Mapping[str, Any], *, same: str = "") -> None:
    """Say that nothing was done to what was named; what was done before is done, and so is the command.

    Args:
        ids: What was named.
        found: The operation as it ended.
        same: What it is called where it was done; the operation's verb if empty.

    Raises:
        RefusedError: None of it is there, or it may not be done to any of it.
    """
    if not ids or found["done"]:
        return
    if not found["skipped"]:
        raise shell.RefusedError(
            f"nothing is kept as {', '.join(ids)}: name a record or its run by the ids that `list` shows"
        )
    verb = str(found["action"])
    same = same or verb
    if any(not str(one["why"]).startswith(f"{same} by ") for one in found["reasons"]):
        before = verb != "resume" and [*found["skipped"]] == ["done before"]
        hint = ", and --again, which does it all the same" if before else ""
        raise shell.RefusedError(f"nothing was {_DONE.get(verb, verb)}: see why above{hint}")


def edited(path: str, of: Wanted, body: Mapping[str, Any]) -> None:
    """Open a record's value in an editor, and have it sent back changed.

    Raises:
        RefusedError: Several are named; nothing was changed; it is no JSON, or not of the agent's type.
    """
    record = _one(of.chosen)
    own = f"{path}/{quote(record, safe='')}"
    with connect() as gateway:
        found = gateway.get(own)
        if found.get("undecoded"):
            shell.note(f"its value cannot be read ({found['undecoded']}); write the task as JSON")
        before = json.dumps(found.get("decoded"), indent=2, ensure_ascii=False) + "\n"
        after = _edit(before)
        if after.strip() == before.strip():
            raise shell.RefusedError("nothing was changed, so nothing was sent")
        value = parse(after, "the value")
        if of.dry_run:
            shell.document({"would": "edit", "id": record, "value": value})
            return
        answer = gateway.post(f"{own}/edit", {**body, **by(), "value": value})
        found = _wait(gateway, answer["operation"])
    _tell(found, of.output)
    if found["state"] == "failed":
        raise shell.RefusedError(found["error"])
    _refuse_nothing([record], found, same="edit")


def _edit(text: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "value.json"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)  # noqa: S603 - the user's own editor
        except (OSError, subprocess.CalledProcessError) as error:
            raise shell.RefusedError(f"EDITOR {editor!r}: {error}; nothing was sent") from error
        return file.read_text(encoding="utf-8")


def _followed(gateway: Gateway, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = gateway.post(path, dict(body))
    return _wait(gateway, answer["operation"])


def _wait(gateway: Gateway, operation: str) -> dict[str, Any]:
    """Follow an operation, with a bar on a terminal."""
    console = rich.console.Console(stderr=True, emoji=False)
    pause_s, moved_s, looked, said = _LOOK_S, time.monotonic(), -1, False
    with rich.progress.Progress(
        "{task.description}",
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(operation, total=None)
        while True:
            found: dict[str, Any] = gateway.get(f"/api/v1/operations/{operation}")
            bar.update(task, completed=found["looked"], total=found["total"] or None)
            if found["state"] != "running":
                return found
            if found["looked"] != looked:
                looked, moved_s = found["looked"], time.monotonic()
            elif not said and time.monotonic() - moved_s > STILL_S:
                said = True
                shell.note(
                    f"nothing has moved for {STILL_S:g} s: is Kafka away? `headwater doctor` tells. It goes "
                    "on by itself when it can; if you stop here, the same command follows it again"
                )
            time.sleep(pause_s)
            pause_s = min(_LOOK_S_MAX, pause_s * 1.5)


_DONE = {"replay": "replayed", "discard": "discarded", "resume": "resumed"}


def _tell(found: Mapping[str, Any], output: shell.Format) -> None:
    if output is shell.Format.JSON:
        shell.document(found)
        return
    would = "would be " if found.get("dry_run") else ""
    print(f"{would}{_DONE.get(found['action'], found['action'])}: {found['done']}")
    for kind, count in sorted(found["skipped"].items()):
        print(f"skipped: {count} ({kind})")
    for one in found["reasons"]:
        shell.note(f"  {one['id']}: {one['why']}")
    if found["state"] == "stopped":
        shell.note("it was stopped; the same command goes on where it was")
