"""`headwater quarantine`: records that nobody could take, as they are kept, through a gateway."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import shell
from headwater.cli.gateway import connect

app = typer.Typer(no_args_is_help=True, help="Look at records that nobody could take.")


@app.command("list")
def list_(
    topic: Annotated[str, typer.Option(help="Only from this topic.")] = "",
    code: Annotated[str, typer.Option(help="Only of this class, for example unknown-schema.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List quarantined records, newest first."""
    params = {"topic": topic, "code": code, "limit": str(limit)}
    with connect() as gateway:
        records = gateway.get("/api/v1/quarantine", params)["records"]
    if output is shell.Format.JSON:
        shell.document(records)
        return
    if not records:
        shell.note("quarantine is empty")
        return
    shell.table(
        ["id", "class", "message"],
        [(of["id"], of.get("code"), of.get("message")) for of in records],
        keep=["id", "class"],
    )


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="As `quarantine list` names it.")],
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show one record: where it came from, why it was refused, and its bytes."""
    with connect() as gateway:
        found = gateway.get(f"/api/v1/quarantine/{quote(record, safe='')}")
    if output is shell.Format.JSON:
        shell.document(found)
        return
    print(f"{found['id']}  {found.get('code')}\nfrom     {_origin(found)}")
    print(f"because  {found.get('message')}")
    for name, value in (found.get("headers") or {}).items():
        print(f"header   {name}: {value}")
    print(f"key      {found.get('key')}\nvalue    {found.get('value')}")


def _origin(record: dict[str, Any]) -> str:
    return f"{record.get('topic')}[{record.get('partition')}]@{record.get('offset')}"
