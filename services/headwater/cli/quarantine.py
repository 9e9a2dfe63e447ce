"""`headwater quarantine`: records that nobody could take, as they are kept, through a gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli import kept, shell

app = typer.Typer(
    no_args_is_help=True, help="Look at records that nobody could take; send them back, or not."
)
PATH = "/api/v1/quarantine"

Topic = Annotated[
    str, typer.Option(help="Only from this topic; or a topic of other systems' dead letters.")
]


@app.command("list")
def list_(
    topic: Topic = "",
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List quarantined records, newest first."""
    chosen = kept.Chosen(topic=topic, tenant=tenant, agent=agent, error=error, since=since)
    columns = {"id": "id", "class": "code", "done": "done", "message": "message"}
    kept.listed(PATH, chosen, limit, output, columns, empty="quarantine is empty")


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="As `quarantine list` names it.")],
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show one record: where it came from, why it was refused, and its bytes."""
    kept.shown(PATH, record, output)


@app.command()
def replay(
    record: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    *,
    topic: Topic = "",
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    id: kept.Ids = None,  # noqa: A002 - the option's name
    all_: kept.All = False,
    to: Annotated[str, typer.Option(help="Send them here, not where they came from.")] = "",
    edit: kept.Edit = False,
    rate: kept.Rate = "",
    again: kept.Again = False,
    operation: kept.OperationName = "",
    reason: kept.Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Send records back to the topic they came from, byte for byte; twice is once."""
    ids = [*(record or ()), *(id or ())]
    chosen = kept.Chosen(ids=ids, topic=topic, tenant=tenant, agent=agent, error=error, since=since)
    chosen.need_some(all_=all_)
    body = {"reason": reason, "to": to, "dry_run": dry_run, "again": again, "operation": operation}
    if edit:
        kept.edited(PATH, kept.one(chosen), body, output)
        return
    body |= {**chosen.told(), "all": all_, "rate": kept.per_second(rate)}
    ask = "" if ids else "Replay {n} records?"
    kept.operate(f"{PATH}/replay", body, output, ask=ask, yes=yes)


@app.command()
def discard(
    record: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    *,
    topic: Topic = "",
    tenant: kept.Tenant = "",
    agent: kept.Agent = "",
    error: kept.Error = "",
    since: kept.Since = "",
    id: kept.Ids = None,  # noqa: A002 - the option's name
    all_: kept.All = False,
    operation: kept.OperationName = "",
    reason: kept.Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Note that nobody wants records any more; who said so and why is kept, and so are they."""
    chosen = kept.Chosen(
        ids=[*(record or ()), *(id or ())],
        topic=topic,
        tenant=tenant,
        agent=agent,
        error=error,
        since=since,
    )
    chosen.need_some(all_=all_)
    body = {**chosen.told(), "all": all_, "reason": reason, "dry_run": dry_run}
    body["operation"] = operation
    kept.operate(f"{PATH}/discard", body, output, ask="Discard {n} records?", yes=yes)
