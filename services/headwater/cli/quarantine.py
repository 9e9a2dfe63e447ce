"""`headwater quarantine`: records that nobody could take, as they are kept, through a gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli import kept, options, shell

app = typer.Typer(
    no_args_is_help=True, help="Look at records nobody could take; send them back, or not."
)
PATH = "/api/v1/quarantine"


@app.command("list")
def list_(
    topic: kept.Topic = "",
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
    kept.listed(
        PATH,
        chosen,
        limit,
        output,
        columns,
        noun="record in quarantine",
        empty="quarantine is empty",
    )


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="As `quarantine list` names it.")],
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show one record. Says where it came from, why it was refused, and its bytes."""
    kept.shown(PATH, record, output)


@app.command(cls=shell.Command)
@options.gathered(kept.wanted)
def replay(
    of: kept.Wanted,
    *,
    to: Annotated[str, typer.Option(help="Send them here, not where they came from.")] = "",
    edit: kept.Edit = False,
    rate: kept.Rate = "",
    again: kept.Again = False,
    operation: kept.OperationName = "",
) -> None:
    """Send records back to the topic they came from, byte for byte. Twice is once."""
    body = of.body(rate=rate, to=to, again=again, operation=operation)
    if edit:
        kept.edited(PATH, of, body)
        return
    kept.operate(f"{PATH}/replay", of, body, ask="" if of.chosen.ids else "Replay {n} records?")


@app.command(cls=shell.Command)
@options.gathered(kept.wanted)
def discard(
    of: kept.Wanted, *, again: kept.Again = False, operation: kept.OperationName = ""
) -> None:
    """Note that nobody wants records any more. Who said so and why is kept, and so are they."""
    body = of.body(again=again, operation=operation)
    kept.operate(f"{PATH}/discard", of, body, ask="Discard {n} records?")
