"""`headwater tasks publish`: give agents work, through a gateway."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import rich.console
import rich.progress
import typer

from headwater.cli import discovery, journey, runs, shell
from headwater.cli.gateway import Gateway, UnansweredError, connect

app = typer.Typer(no_args_is_help=True, help="Publish tasks.")

_WAIT_S = 20.0
"""How long one request waits; a longer wait asks again."""


@app.callback()
def tasks() -> None:
    """Publish tasks."""


@app.command()
def publish(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Which agent.")],
    tenant: Annotated[str, typer.Option(help="Whose task; else [tool.headwater] tenant.")] = "",
    task: Annotated[str, typer.Option("--json", metavar="J", help="The task, as JSON.")] = "",
    file: Annotated[
        pathlib.Path | None,
        typer.Option("--file", metavar="F.jsonl", help="One task a line; - reads stdin."),
    ] = None,
    own_id: Annotated[
        str,
        typer.Option(
            "--id", help="Your name for the task: the same is one task. With --file, ID-LINE."
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")] = False,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Wait at most so long.")] = 600.0,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Publish one task, or a file of them."""
    _one_source(task, file)
    given = [("", own_id, runs.parse(task, "--json"))] if task else [*_lines(file, own_id)]
    if not given:
        shell.note(f"{file} has no task in it")
    whose = discovery.tenant(tenant)
    if dry_run:
        answers: list[Any] = [
            {"agent": agent, "tenant": whose, "id": one, "task": of} for _, one, of in given
        ]
        _print(answers, output, "would publish", several=file is not None)
        return
    answers = []
    with connect() as gateway, _bar(len(given)) as advance:
        for where, one, of in given:
            try:
                answer = _publish(gateway, agent, whose, one, of, wait_s=timeout_s if wait else 0)
            except shell.RefusedError as error:
                if not where:
                    raise
                _print(answers, output, "published", several=True)
                raise _halfway(where, error, len(answers), own_id) from error
            answers.append(answer)
            advance()
    if wait:
        _outcomes(answers, output, several=file is not None)
    else:
        _print(answers, output, "published", several=file is not None)


def _one_source(task: str, file: pathlib.Path | None) -> None:
    if task and file is not None:
        raise shell.RefusedError(
            f"--json and --file {file} both name tasks: give one of them", status=shell.WRONG_USAGE
        )
    if not task and file is None:
        raise shell.RefusedError(
            "which task? Give either --json J or --file F.jsonl", status=shell.WRONG_USAGE
        )


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """Show how far a long file got, on a terminal."""
    console = rich.console.Console(file=sys.stderr, emoji=False)
    if total == 1 or not console.is_terminal:
        yield lambda: None
        return
    with rich.progress.Progress(console=console, transient=True) as bar:
        shown = bar.add_task("publishing", total=total)
        yield lambda: bar.advance(shown)


def _publish(
    gateway: Gateway, agent: str, tenant: str, own_id: str, task: Any, *, wait_s: float
) -> Mapping[str, Any]:
    asked_s = min(wait_s, _WAIT_S)
    name = own_id or str(uuid.uuid4())
    try:
        answer: Mapping[str, Any] = gateway.post(
            f"/api/v1/agents/{quote(agent, safe='')}/tasks",
            task,
            params={"tenant": tenant, "wait_s": f"{asked_s:g}" if wait_s else ""},
            headers={"idempotency-key": name},
            timeout_s=asked_s + 30,
        )
    except UnansweredError as error:
        raise shell.RefusedError(
            f"{error}. It may have been published: with --id {name} it is the same task"
        ) from error
    if not wait_s or answer.get("status") in journey.ENDED:
        return answer
    return runs.follow(gateway, _id(answer), timeout_s=wait_s)


def _halfway(where: str, error: shell.RefusedError, done: int, own_id: str) -> shell.RefusedError:
    """Return what is said where a file was published up to a line."""
    before = f"the {shell.count(done, 'task')} before it {'was' if done == 1 else 'were'} published"
    again = "; published again, these are the same tasks" if own_id else ""
    return shell.RefusedError(
        f"{where}: {error}{f'; {before}{again}' if done else ''}", status=error.status
    )


def _lines(file: pathlib.Path | None, own_id: str) -> Iterator[tuple[str, str, Any]]:
    """Yield where each task of a file stands, its id and the task."""
    assert file is not None
    try:
        with sys.stdin if str(file) == "-" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    one = f"{own_id}-{number}" if own_id else ""
                    where = f"{file} line {number}"
                    yield where, one, runs.parse(line, where)
    except OSError as error:
        raise shell.RefusedError(
            f"--file {file}: {error.strerror}", status=shell.WRONG_USAGE
        ) from error
    except UnicodeDecodeError as error:
        raise shell.RefusedError(
            f"--file {file}: it is no text in UTF-8", status=shell.WRONG_USAGE
        ) from error


def _print(answers: list[Any], output: shell.Format, verb: str, *, several: bool) -> None:
    if output is shell.Format.JSON:
        shell.document(answers if several else answers[0])
        return
    for answer in answers:
        print(f"{verb} {_id(answer) or json.dumps(answer['task'], ensure_ascii=False)}")


def _outcomes(answers: list[Any], output: shell.Format, *, several: bool) -> None:
    if output is shell.Format.JSON:
        shell.document(answers if several else answers[0])
    failed = [answer for answer in answers if answer.get("status") != "completed"]
    if output is shell.Format.TABLE:
        for answer in answers:
            if answer.get("status") == "completed":
                print(json.dumps(answer.get("outcome"), ensure_ascii=False))
    if failed:
        first = failed[0]
        words = ": ".join(str(first[part]) for part in ("error", "detail") if first.get(part))
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise shell.RefusedError(
            f"{_id(first)} {first.get('status')}: {words}{more}; see `headwater runs show {_id(first)}`"
        )


def _id(answer: Mapping[str, Any]) -> str:
    return str(answer.get("run") or answer.get("task_id") or answer.get("id") or "")
