"""`headwater dlq`: the dead letters of failed runs: replay them, resume or discard their runs."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli import kept, options, shell
from headwater.cli.runs import AddSteps, AddTokens, AddUsd

app = typer.Typer(
    no_args_is_help=True, help="Look at failed runs' dead letters; resume, replay or discard."
)
PATH = "/api/v1/dlq"


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
    kept.listed(
        PATH, chosen, limit, output, columns, noun="dead letter", empty="there are no dead letters"
    )


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` names it.")],
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show one dead letter. Says why its run failed, what that had changed, and the task."""
    kept.shown(PATH, record, output)


@app.command(cls=shell.Command)
@options.gathered(kept.wanted, without=["topic"])
def resume(
    of: kept.Wanted,
    *,
    add_usd: AddUsd = 0.0,
    add_steps: AddSteps = 0,
    add_tokens: AddTokens = 0,
    repeat_writes: kept.RepeatWrites = False,
    despite_no: Annotated[
        bool,
        typer.Option(
            "--despite-no", help="Also where a person said no: the agent is told so again."
        ),
    ] = False,
    rate: kept.Rate = "",
) -> None:
    """Have failed runs go on before the turn that failed. Nothing answered is asked again."""
    body = of.body(rate=rate, repeat_writes=repeat_writes, despite_no=despite_no)
    body |= {"add_usd": add_usd, "add_steps": add_steps, "add_tokens": add_tokens}
    ask = "" if of.chosen.ids else "Resume the runs of {n} dead letters?"
    kept.operate(f"{PATH}/resume", of, body, ask=ask)


@app.command(cls=shell.Command)
@options.gathered(kept.wanted, without=["topic"])
def replay(
    of: kept.Wanted,
    *,
    repeat_writes: kept.RepeatWrites = False,
    edit: kept.Edit = False,
    rate: kept.Rate = "",
    again: kept.Again = False,
    operation: kept.OperationName = "",
) -> None:
    """Publish the tasks of failed runs again, as new runs. Twice is once."""
    more = {"repeat_writes": repeat_writes, "again": again, "operation": operation}
    body = of.body(rate=rate, **more)
    if edit:
        kept.edited(PATH, of, body)
        return
    ask = "" if of.chosen.ids and not repeat_writes else "Replay {n} dead letters?"
    if repeat_writes:
        ask = "Replay {n} dead letters, and make calls that changed the world again?"
    kept.operate(f"{PATH}/replay", of, body, ask=ask)


@app.command(cls=shell.Command)
@options.gathered(kept.wanted, without=["topic"])
def discard(
    of: kept.Wanted,
    *,
    rate: kept.Rate = "",
    again: kept.Again = False,
    operation: kept.OperationName = "",
) -> None:
    """Drop failed runs for good; who did it and why is kept."""
    body = of.body(rate=rate, again=again, operation=operation)
    kept.operate(f"{PATH}/discard", of, body, ask="Discard {n} failed runs?")
