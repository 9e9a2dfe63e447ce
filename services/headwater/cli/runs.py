"""`headwater runs`: what runs are doing, and control over them, through a gateway."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any, get_args
from urllib.parse import quote

import typer

from headwater.cli import discovery, journey, shell
from headwater.cli.gateway import Gateway, by, connect
from headwater.contracts.messages import Status

app = typer.Typer(no_args_is_help=True, help="List, show, tail and control runs.")

RunArgument = Annotated[str, typer.Argument(metavar="ID", help="A run id or a task id.")]
AddUsd = Annotated[
    float, typer.Option("--add-usd", min=0, help="Raise its limit of money by so many US dollars.")
]
AddSteps = Annotated[
    int, typer.Option("--add-steps", min=0, help="Raise its limit of steps by so many.")
]
RepeatWrites = Annotated[
    bool, typer.Option("--repeat-writes", help="Make calls that changed the world again.")
]
AddTokens = Annotated[
    int, typer.Option("--add-tokens", min=0, help="Raise its limit of tokens by so many.")
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant",
        help="Whose it is, where ID is the --id it was published with; else [tool.headwater] tenant.",
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is journaled.")]

STATUSES = tuple(status for status in get_args(Status) if status != "started")
"""Where a run may be; one that has started waits, if it has not ended."""
WAITS = ("approval", "signal", "sleep")
"""What a run may wait for besides its calls."""
STOPPED = frozenset({"held", "paused"})
"""Where a run stays until somebody does something."""
SEEN_S = 2.0
"""How long a gateway may take to hear of a run that was published just now."""
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def path_of(run: str, *rest: str) -> str:
    """Return the gateway's path of a run, whatever characters the id has."""
    return "/".join(["/api/v1/runs", quote(run, safe=""), *(quote(part, safe="") for part in rest)])


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only of this agent.")] = "",
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    status: Annotated[str, typer.Option(help=f"Only in this status: {', '.join(STATUSES)}.")] = "",
    waiting_for: Annotated[
        str, typer.Option(help=f"Only those waiting for it: {', '.join(WAITS)}.")
    ] = "",
    older_than: Annotated[str, typer.Option(help="Only older, for example 90s, 15m, 2h, 1d.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List runs, newest first."""
    if status:
        shell.one_of("status", status, STATUSES)
    if waiting_for:
        shell.one_of("wait", waiting_for, WAITS)
    params = {
        "agent": agent,
        "tenant": tenant,
        "status": status,
        "waiting_for": waiting_for,
        "older_than_s": str(seconds(older_than, "--older-than")) if older_than else "",
        "limit": str(limit),
    }
    with connect() as gateway:
        runs = gateway.get("/api/v1/runs", params)["runs"]
    if output is shell.Format.JSON:
        shell.document(runs)
        return
    if not runs:
        asked = {name: value for name, value in params.items() if name != "limit"}
        shell.note("there are no such runs" if any(asked.values()) else "there are no runs")
        return
    now_ms = shell.now_ms()
    shell.table(
        ["run", "status", "tokens", "money", "age"],
        [
            (
                run.get("run") or run.get("task_id"),
                _status(run),
                run.get("tokens", 0),
                shell.money(int(run.get("usd_nano") or 0)),
                _age(run, now_ms),
            )
            for run in runs
        ],
        keep=["run", "status"] if any(_names_approval(run) for run in runs) else ["run"],
        spare=["tokens", "money"],
    )
    shell.note_more(len(runs), limit)


@app.command()
def show(run: RunArgument, tenant: Tenant = "", output: shell.Output = shell.Format.TABLE) -> None:
    """Show a run's journey as a tree: steps, times, tokens, money."""
    with connect() as gateway:
        found = known(gateway, run, tenant)

        def fetch(child: str) -> Mapping[str, Any] | None:
            answer: Mapping[str, Any] = gateway.get(path_of(child))
            return None if answer.get("status") == "unknown" else answer

        if output is shell.Format.JSON:
            shell.document(journey.gather(found, fetch))
        else:
            shell.out().print(journey.tree(found, fetch))


@app.command()
def tail(run: RunArgument, tenant: Tenant = "", output: shell.Output = shell.Format.TABLE) -> None:
    """Follow a run until it ends. Prints its events, and its models' tokens as they stream."""
    streaming = False
    with connect() as gateway:
        path = path_of(_id(known(gateway, run, tenant), run), "events")
        with contextlib.closing(gateway.events(path)) as events:
            for event in events:
                data = json.loads(event.data)
                if output is shell.Format.JSON:
                    told = {"id": event.id, "event": event.type, "data": data}
                    print(json.dumps(told), flush=True)
                else:
                    streaming = _tell(event.type, data, streaming)
                if data.get("status") in journey.ENDED:
                    return


@app.command()
def cancel(
    run: RunArgument,
    tenant: Tenant = "",
    reason: Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Cancel a run. Its code gets the budget's cleanup steps, then it is over."""
    ask = f"Cancel {run}?"
    _control(
        run, "cancel", {"reason": reason}, dry_run, output, tenant=tenant, ask="" if yes else ask
    )


@app.command()
def pause(
    run: RunArgument,
    tenant: Tenant = "",
    reason: Reason = "",
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Hold a run: its answers are kept and nothing new is asked."""
    _control(run, "pause", {"reason": reason}, dry_run, output, tenant=tenant)


@app.command()
def resume(
    run: RunArgument,
    tenant: Tenant = "",
    reason: Reason = "",
    add_usd: AddUsd = 0.0,
    add_steps: AddSteps = 0,
    add_tokens: AddTokens = 0,
    repeat_writes: RepeatWrites = False,
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Let a run go on that is paused, held or failed.

    A failed one goes on before the turn that failed, with today's code; nothing that was answered
    is asked again.
    """
    with connect() as gateway:
        found = known(gateway, run, tenant)
    writes = [*(found.get("writes") or ())] if found.get("status") == "failed" else []
    if writes and not dry_run and not repeat_writes:
        shell.note(f"the failing turn of {run} had changed the world: {', '.join(writes)}")
        shell.confirm("Resume it, and make these calls again?", yes=yes)
        repeat_writes = True
    if found.get("status") == "failed" and found.get("error") == "headwater.errors.Denied":
        shell.note(f"{run} failed on a person's no, or on nobody's yes: it is told so again")
        if not dry_run:
            shell.confirm("Resume it all the same?", yes=yes)
    body = {
        "reason": reason,
        "attempt": found.get("attempt") or 0,
        "add_usd": add_usd,
        "add_steps": add_steps,
        "add_tokens": add_tokens,
        "repeat_writes": repeat_writes,
    }
    _control(run, "resume", body, dry_run, output, tenant=tenant, more={"repeats": writes})


@app.command()
def discard(
    run: RunArgument,
    tenant: Tenant = "",
    reason: Reason = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Drop a failed run: it can be resumed no more. Who did it and why is kept."""
    ask = f"Discard {run} for good?"
    _control(
        run, "discard", {"reason": reason}, dry_run, output, tenant=tenant, ask="" if yes else ask
    )


@app.command()
def signal(
    run: RunArgument,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, as the agent receives it.")
    ],
    tenant: Tenant = "",
    value: Annotated[str, typer.Option("--json", metavar="J", help="Its value.")] = "null",
    reason: Reason = "",
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Send a run a signal: a person's decision, a piece of news."""
    body = {"value": parse(value, "--json"), "reason": reason}
    _control(run, f"signals/{name}", body, dry_run, output, tenant=tenant)


def known(gateway: Gateway, run: str, tenant: str = "") -> Mapping[str, Any]:
    """Return a run that this gateway has heard of.

    Args:
        gateway: Where it is asked for.
        run: A run id, a task id, or the `--id` that it was published with.
        tenant: Whose it is; the project's default if empty.

    Raises:
        RefusedError: It has not, and does not within `SEEN_S`.
    """
    until = time.monotonic() + SEEN_S
    while True:
        params = {"tenant": discovery.tenant(tenant)}
        found: Mapping[str, Any] = gateway.get(path_of(run), params)
        if found.get("status") != "unknown":
            return found
        if time.monotonic() > until:
            raise shell.RefusedError(
                f"this gateway knows no run {run}: was it published, in this namespace and for this tenant? "
                "See `headwater runs list`"
            )
        time.sleep(0.1)


def parse(text: str, where: str) -> Any:
    """Read JSON that a person typed.

    Raises:
        RefusedError: It is none; the message says where and how strings are written.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        plain = text.replace(" ", "_").isidentifier()
        hint = f"; a string needs quotes of its own: '\"{text}\"'" if plain else ""
        raise shell.RefusedError(
            f"{where}: {error.msg.removesuffix(' at')} at column {error.colno}{hint}",
            status=shell.WRONG_USAGE,
        ) from error


def seconds(text: str, where: str) -> int:
    """Read a length of time such as `90s`, `15m`, `2h` or `1d`, in seconds.

    Raises:
        RefusedError: It is none; the message says where.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise shell.RefusedError(
            f"{where}: {text!r} is no length of time: write 90s, 15m, 2h or 1d",
            status=shell.WRONG_USAGE,
        )
    return int(found[1]) * _UNITS_S[found[2]]


def follow(gateway: Gateway, run: str, *, timeout_s: float) -> Mapping[str, Any]:
    """Wait until a run has ended and return it; say once what keeps one that is held or paused.

    Raises:
        RefusedError: It goes on longer than that; which is no failure of the run.
    """
    until, pause_s, said = time.monotonic() + timeout_s, 0.2, ""
    while True:
        found: Mapping[str, Any] = gateway.get(path_of(run))
        status = found.get("status")
        if status in journey.ENDED:
            return found
        reason = f": {found['reason']}" if found.get("reason") else ""
        if status in STOPPED and reason != said:
            said = reason
            shell.note(f"{run} is {status}{reason}")
        if time.monotonic() + pause_s > until:
            raise shell.RefusedError(
                f"{run} goes on after {timeout_s:g} s ({status}{reason}): follow it with "
                f"`headwater runs tail {run}`"
            )
        time.sleep(pause_s)
        pause_s = min(2.0, pause_s * 1.5)


def _tell(kind: str, data: Mapping[str, Any], streaming: bool) -> bool:
    """Print one event; return whether the cursor stands in a streamed answer."""
    if kind == "token":
        print(data.get("text", ""), end="", flush=True)
        return True
    if kind == "reset":
        print("\n(the answer starts over)", flush=True)
        return False
    if streaming:
        print()
    print(_line(data), flush=True)
    return False


def _control(
    run: str,
    verb: str,
    body: Mapping[str, Any],
    dry_run: bool,
    output: shell.Format,
    *,
    tenant: str,
    ask: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Look at a run, ask, and send it a word, unless it can be seen to do nothing."""
    with connect() as gateway:
        found = known(gateway, run, tenant)
        path = path_of(_id(found, run), *verb.split("/", 1))
        _refuse_ended(found, run, verb)
        if dry_run:
            answer: Any = {"would": verb, "run": run, "body": dict(body), **(more or {})}
        else:
            if ask:
                shell.confirm(ask, yes=False)
            params = {"tenant": discovery.tenant(tenant)}
            answer = gateway.post(path, {**body, **by()}, params=params)
    if output is shell.Format.JSON:
        shell.document(answer)
    else:
        print(f"{'would send' if dry_run else 'sent'} {_said(verb)} to {run}")


def _refuse_ended(found: Mapping[str, Any], run: str, verb: str) -> None:
    """Refuse what can be seen to do nothing.

    Raises:
        RefusedError: The run has ended; or it has not failed, and what has not is not discarded.
    """
    status = str(found.get("status"))
    if status == "failed" and verb not in ("resume", "discard"):
        raise shell.RefusedError(
            f"{run} has failed, so {_said(verb)} would do nothing: `headwater runs resume {run}` has "
            f"it go on, `headwater runs discard {run}` drops it"
        )
    if status in journey.ENDED and status != "failed":
        raise shell.RefusedError(f"{run} is {status} already, so {_said(verb)} would do nothing")
    if status != "failed" and verb == "discard":
        raise shell.RefusedError(f"{run} is {status}: only a failed run is discarded; see cancel")


def _said(verb: str) -> str:
    """Return a verb as a person says it; of a signal, the path's end carries the name."""
    kind, _, name = verb.partition("/")
    return f"signal {name}" if kind == "signals" else verb


def _id(found: Mapping[str, Any], run: str) -> str:
    return str(found.get("run") or found.get("task_id") or run)


def _status(run: Mapping[str, Any]) -> str:
    """Return where a run is, and what it waits for: what its last event said, or its open calls."""
    status = str(run.get("status") or "")
    reason = _left(str(run.get("reason") or "")) or journey.awaited(run)
    return f"{status} ({reason})" if reason and status not in journey.ENDED else status


def _names_approval(run: Mapping[str, Any]) -> bool:
    """Say whether a run's status has an id that `approvals` takes."""
    waits = run.get("status") not in journey.ENDED
    return waits and str(run.get("reason") or "").startswith("approval ")


def _left(reason: str, now_ms: int | None = None) -> str:
    """Return a reason; of a sleep, how long it goes on."""
    found = re.fullmatch(r"sleep until (\S+)", reason)
    if found is None:
        return reason
    until_ms = round(datetime.datetime.fromisoformat(found[1]).timestamp() * 1_000)
    left_ms = until_ms - (shell.now_ms() if now_ms is None else now_ms)
    return f"sleep, {shell.duration(left_ms)} left" if left_ms > 0 else "sleep"


def _age(run: Mapping[str, Any], now_ms: int) -> str:
    since = int(run.get("started_ms") or run.get("at_ms") or 0)
    return " ".join(shell.duration(max(0, now_ms - since)).split()[:2]) if since else ""


def _line(data: Mapping[str, Any]) -> str:
    """Return one life-cycle event as a line."""
    calls = ", ".join(
        f"{call.get('kind')} {call.get('name')} {call.get('state')}"
        for call in data.get("calls") or ()
    )
    words = [str(data.get("status") or ""), str(data.get("reason") or ""), calls]
    words.append(str(data.get("error") or ""))
    return "  ".join(word for word in words if word)
