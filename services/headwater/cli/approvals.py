"""`headwater approvals`: what waits for people, and their decisions, through a gateway."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import options, runs, shell
from headwater.cli.gateway import Gateway, by, connect

app = typer.Typer(no_args_is_help=True, help="See what waits for people, and decide.")

STATUSES = (
    "open",
    "approved",
    "denied",
    "happened",
    "not-happened",
    "given-up",
    "expired",
    "withdrawn",
)
WAIT_S = 10
_TIMEOUT_S = 30.0
Approval = Annotated[str, typer.Argument(metavar="ID", help="As `approvals list` names it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]
As = Annotated[
    str,
    typer.Option(
        "--as", metavar="NAME", help="Who decides, where the gateway has no tokens: by default you."
    ),
]
Digest = Annotated[
    str,
    typer.Option(
        "--digest", help="Decide only about these arguments: the digest that `show` gave before."
    ),
]


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help="Only in this status; `all` for any.")] = "open",
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    to: Annotated[str, typer.Option(help="Only put to this actor, or to group:NAME.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List what waits for people, the soonest to expire first."""
    shell.one_of("status", status, [*STATUSES, "all"])
    params = {
        "status": "" if status == "all" else status,
        "tenant": tenant,
        "run": run,
        "to": to,
        "limit": str(limit),
    }
    with connect() as gateway:
        found = gateway.get("/api/v1/approvals", params)["approvals"]
    if output is shell.Format.JSON:
        shell.document(found)
        return
    if not found:
        shell.note("nothing waits for anybody" if status == "open" else "there are none")
        return
    now_ms = shell.now_ms()
    shell.table(
        ["id", "about", "words", "to", "status"],
        [
            (of["id"], of["about"], of["words"], of["to"] or "anybody", _state(of, now_ms))
            for of in found
        ],
        keep=["id", "status"],
    )


@app.command()
def show(approval: Approval, output: shell.Output = shell.Format.TABLE) -> None:
    """Show what is asked, about what, who may decide, and how it ended."""
    with connect() as gateway:
        found = gateway.get(_path(approval))
    if output is shell.Format.JSON:
        shell.document(found)
        return
    print("\n".join(_lines(found, shell.now_ms())))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a person says about which approval, and how it is asked for and told."""

    approval: Approval
    reason: Reason = ""
    as_: As = ""
    digest: Digest = ""
    yes: shell.Yes = False
    dry_run: shell.DryRun = False
    output: shell.Output = shell.Format.TABLE


@app.command()
@options.gathered(Word)
def approve(of: Word) -> None:
    """Approve what is asked, after showing it. The run goes on, and a call is sent."""
    _decide(of, "approve")


@app.command()
@options.gathered(Word)
def deny(of: Word) -> None:
    """Deny what is asked. The agent learns who said no, and why; a call is never sent."""
    _decide(of, "deny")


@app.command()
@options.gathered(Word)
def resolve(
    of: Word,
    *,
    happened: Annotated[
        str, typer.Option("--happened", metavar="JSON", help="It happened, and returned this.")
    ] = "",
    not_happened: Annotated[
        bool, typer.Option("--not-happened", help="It did not happen: it is made again.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Nobody can find out: the agent gets an error.")
    ] = False,
) -> None:
    """Say what became of a call that nobody knows the end of."""
    given = {"happened": happened, "not-happened": not_happened, "give-up": give_up}
    chosen = [verdict for verdict, said in given.items() if said]
    if len(chosen) != 1:
        raise shell.RefusedError(
            "say one of --happened JSON, --not-happened, --give-up", status=shell.WRONG_USAGE
        )
    value = {"value": runs.parse(happened, "--happened")} if happened else {}
    _decide(of, chosen[0], **value)


def _decide(of: Word, verdict: str, **more: Any) -> None:
    """Look at it, and decide about exactly what was looked at."""
    approval, output = of.approval, of.output
    body = {"reason": of.reason, **by(of.as_), **more}
    with connect() as gateway:
        found = gateway.get(_path(approval))
        _check(found, verdict, of.digest)
        if of.dry_run:
            said = body | {"digest": found["digest"]}
            again = gateway.post(_path(approval, verdict, "check"), said)["again"]
            if output is shell.Format.JSON:
                would = {"verdict": verdict, "body": body, "again": again, "sent": False}
                shell.document({"approval": found, **would})
                return
            print("\n".join(_lines(found, shell.now_ms())))
            print(_AGAIN if again else f"would {_DOES[verdict].format(it='it')}")
            return
        if output is shell.Format.TABLE or not of.yes:
            shell.note("\n".join(_lines(found, shell.now_ms())))
        question = _DOES[verdict].format(it=approval)
        shell.confirm(f"{question[0].upper()}{question[1:]}?", yes=of.yes)
        with shell.progress("deciding"):
            after = _send(gateway, approval, verdict, body | {"digest": found["digest"]})
    if output is shell.Format.JSON:
        shell.document(after)
    elif "decision" in after and "status" not in after:
        shell.note(f"sent, and not taken yet: see `headwater approvals show {approval}`")
    else:
        print(f"{approval}: {after['status']} by {after['by']}")


def _send(gateway: Gateway, approval: str, verdict: str, body: Mapping[str, Any]) -> Any:
    return gateway.post(
        _path(approval, verdict),
        body,
        params={"wait_s": str(WAIT_S)},
        timeout_s=_TIMEOUT_S,
    )


def _check(found: Mapping[str, Any], verdict: str, digest: str) -> None:
    """Refuse what cannot be decided so, with what can.

    Raises:
        RefusedError: It cannot.
    """
    approval, doubt = found["id"], found["about"] == "doubt"
    if doubt and verdict in ("approve", "deny"):
        raise shell.RefusedError(
            f"{approval} asks whether {found['name']} happened: say so with `headwater approvals resolve "
            f"{approval} --happened JSON | --not-happened | --give-up`",
            status=shell.WRONG_USAGE,
        )
    if not doubt and verdict not in ("approve", "deny"):
        raise shell.RefusedError(
            f"{approval} asks for a yes or no: `headwater approvals approve {approval}`, or deny",
            status=shell.WRONG_USAGE,
        )
    if digest and digest != found["digest"]:
        raise shell.RefusedError(
            f"{approval} is about other arguments than those: look again with "
            f"`headwater approvals show {approval}`"
        )


_AGAIN = "would change nothing: the same was decided before"
_DOES = {
    "approve": "approve {it}",
    "deny": "deny {it}",
    "happened": "say that {it} happened",
    "not-happened": "say that {it} did not happen, so that it is made again",
    "give-up": "give up on {it}",
}


def _path(approval: str, *rest: str) -> str:
    return "/".join(["/api/v1/approvals", quote(approval, safe=""), *rest])


def _state(found: Mapping[str, Any], now_ms: int) -> str:
    if found["status"] != "open":
        return str(found["status"])
    left_ms = int(found["expires_ms"]) - now_ms
    return f"{shell.duration(left_ms)} left" if left_ms > 0 else "expiring"


def _lines(found: Mapping[str, Any], now_ms: int) -> list[str]:
    """Return an approval as a person reads it before they decide."""
    call = f"call {found['number']} of {found['run']}"
    lines = [
        f"{found['id']}  {_state(found, now_ms)}",
        f"asks       {found['words']}",
        f"about      {_ABOUT[found['about']].format(name=found['name'])}, {call}",
        f"arguments  {json.dumps(found['arguments'], ensure_ascii=False)}",
        f"digest     {found['digest']}",
        f"tenant     {found['tenant']}",
        f"decides    {_decides(found)}",
    ]
    if found["status"] != "open":
        by = found.get("by") or "nobody"
        words = f": {found['reason']}" if found.get("reason") else ""
        lines.append(
            f"decided    {found['status']} by {by} at {shell.at(found['decided_ms'])}{words}"
        )
    lines += [
        f"refused    {of['by'] or 'somebody'} at {shell.at(of['at_ms'])}: {of['why']}"
        for of in found.get("refused") or ()
    ]
    return lines


_ABOUT = {
    "agent": "the agent's own question",
    "tool": "sending {name}",
    "doubt": "whether {name} happened",
}


def _decides(found: Mapping[str, Any]) -> str:
    """Say who may decide."""
    to, requester = str(found["to"]), str(found["requester"])
    who = f"the group {to.removeprefix('group:')}" if to.startswith("group:") else to or "anybody"
    return f"{who}, but not {requester}, who asked for the run" if requester else who
