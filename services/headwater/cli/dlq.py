"""`headwater dlq`: the dead letters of failed runs: replay them, resume or discard their runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headwater.cli import kept, shell
from headwater.cli.runs import AddSteps, AddUsd

app = typer.Typer(
    no_args_is_help=True, help="Look at failed runs' dead letters; resume, replay or discard."
)
PATH = "/api/v1/dlq"

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Of a letter or a run.")]


@app.command("list")
def list_(
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List dead letters, newest first."""
    chosen = kept.Chosen(tenant=tenant, agent=agent, error=error, since=since)
    columns = {"id": "id", "run": "run", "error": "code", "done": "done", "message": "message"}
    kept.listed(PATH, chosen, limit, output, columns, empty="there are no dead letters")


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` names it.")],
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show one dead letter: its run, why that failed, what it had changed, and the task."""
    kept.shown(PATH, record, output)


@app.command()
def resume(
    record: Ids = None,
    *,
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    id: kept.Ids = None,  # noqa: A002 - the option's name
    all_: kept.All = False,
    add_usd: AddUsd = 0.0,
    add_steps: AddSteps = 0,
    repeat_writes: kept.RepeatWrites = False,
    despite_no: Annotated[
        bool,
        typer.Option(
            "--despite-no", help="Also where a person said no: the agent is told so again."
        ),
    ] = False,
    rate: kept.Rate = "",
    reason: kept.Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Have failed runs go on before the turn that failed; nothing that was answered is asked again."""
    chosen = _chosen(record, id, tenant, agent, error, since, all_=all_)
    body = _body(chosen, all_, reason, dry_run, rate, repeat_writes)
    body |= {"add_usd": add_usd, "add_steps": add_steps, "despite_no": despite_no}
    ask = "" if chosen.ids else "Resume the runs of {n} dead letters?"
    kept.operate(f"{PATH}/resume", body, output, ask=ask, yes=yes)


@app.command()
def replay(
    record: Ids = None,
    *,
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    id: kept.Ids = None,  # noqa: A002 - the option's name
    all_: kept.All = False,
    repeat_writes: kept.RepeatWrites = False,
    edit: kept.Edit = False,
    rate: kept.Rate = "",
    again: kept.Again = False,
    operation: kept.OperationName = "",
    reason: kept.Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Publish the tasks of failed runs again, as new runs; twice is once."""
    chosen = _chosen(record, id, tenant, agent, error, since, all_=all_)
    body = _body(chosen, all_, reason, dry_run, rate, repeat_writes)
    body |= {"again": again, "operation": operation}
    if edit:
        kept.edited(PATH, kept.one(chosen), body, output)
        return
    ask = "" if chosen.ids and not repeat_writes else "Replay {n} dead letters?"
    if repeat_writes:
        ask = "Replay {n} dead letters, and make calls that changed the world again?"
    kept.operate(f"{PATH}/replay", body, output, ask=ask, yes=yes)


@app.command()
def discard(
    record: Ids = None,
    *,
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    id: kept.Ids = None,  # noqa: A002 - the option's name
    all_: kept.All = False,
    rate: kept.Rate = "",
    operation: kept.OperationName = "",
    reason: kept.Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Drop failed runs for good; who did it and why is kept."""
    chosen = _chosen(record, id, tenant, agent, error, since, all_=all_)
    body = _body(chosen, all_, reason, dry_run, rate, False)
    body["operation"] = operation
    kept.operate(f"{PATH}/discard", body, output, ask="Discard {n} failed runs?", yes=yes)


def _chosen(
    record: list[str] | None,
    id_: list[str] | None,
    tenant: str,
    agent: str,
    error: str,
    since: str,
    *,
    all_: bool,
) -> kept.Chosen:
    ids = [*(record or ()), *(id_ or ())]
    chosen = kept.Chosen(ids=ids, tenant=tenant, agent=agent, error=error, since=since)
    chosen.need_some(all_=all_)
    return chosen


def _body(
    chosen: kept.Chosen, all_: bool, reason: str, dry_run: bool, rate: str, repeat_writes: bool
) -> dict[str, Any]:
    return {
        **chosen.told(),
        "all": all_,
        "reason": reason,
        "dry_run": dry_run,
        "rate": kept.per_second(rate),
        "repeat_writes": repeat_writes,
    }
