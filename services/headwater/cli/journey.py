"""A run's journey as a tree: its calls in order, its children below them, times, tokens, money."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.text
import rich.tree

from headwater.cli import shell

DEPTH_MAX = 8
_DETAIL_MAX = 200
_COLORS = {
    "completed": "green",
    "answered": "green",
    "failed": "red",
    "denied": "red",
    "waiting": "yellow",
    "quarantined": "red",
    "cancelled": "yellow",
    "discarded": "yellow",
    "held": "yellow",
    "paused": "yellow",
}
WAITING = frozenset({"asked", "waiting"})
ENDED = frozenset({"completed", "failed", "cancelled", "quarantined", "discarded"})


Run = Mapping[str, Any]
Fetch = Callable[[str], Run | None]


def tree(run: Run, fetch: Fetch) -> rich.tree.Tree:
    """Return the tree of a run.

    Args:
        run: The run as the gateway tells it.
        fetch: Returns a child's run by its id; `None` where the gateway has not seen it yet.
    """
    root = rich.tree.Tree(_head(run))
    _grow(root, run, fetch, depth=1)
    return root


def gather(run: Run, fetch: Fetch, *, depth: int = 1) -> dict[str, Any]:
    """Return a run with its children's runs in their calls' place, for JSON."""
    calls = []
    for call in _calls(run):
        child = fetch(call["child"]) if call.get("child") and depth < DEPTH_MAX else None
        grown = gather(child, fetch, depth=depth + 1) if child is not None else None
        calls.append({**call, "run": grown} if grown is not None else dict(call))
    return {**run, "calls": calls}


def _grow(branch: rich.tree.Tree, run: Run, fetch: Fetch, *, depth: int) -> None:
    began = int(run.get("started_ms") or 0)
    for call in _calls(run):
        child_id = str(call.get("child") or "")
        twig = branch.add(_call(call, began, goes_on=run.get("status") not in ENDED))
        if not child_id:
            continue
        child = fetch(child_id) if depth < DEPTH_MAX else None
        if child is None:
            twig.add(rich.text.Text(child_id, style="dim"))
            continue
        _grow(twig.add(_head(child)), child, fetch, depth=depth + 1)
    ending = _ending(run)
    if ending is not None:
        branch.add(ending)


def _calls(run: Run) -> Sequence[Mapping[str, Any]]:
    return sorted(run.get("calls") or (), key=lambda call: int(call.get("number") or 0))


def _head(run: Run) -> rich.text.Text:
    status = str(run.get("status") or "unknown")
    attempt = int(run.get("attempt") or 1)
    parts = [
        f"attempt {attempt}" if attempt > 1 else "",
        _took(run),
        shell.count(int(run.get("steps") or 0), "step"),
        shell.count(int(run.get("tokens") or 0), "token"),
    ]
    parts.append(shell.money(int(run.get("usd_nano") or 0)))
    name = str(run.get("run") or run.get("task_id") or run.get("id") or "")
    text = rich.text.Text.assemble(
        (str(run.get("agent") or ""), "bold"),
        " ",
        (status, _COLORS.get(status, "")),
        "  ",
        " · ".join(part for part in parts if part),
        "\n",
        (name, "dim"),
    )
    reason = str(run.get("reason") or "")
    if reason and status not in ("completed",):
        text.append(f"\n{_short(reason)}", style="dim")
    return text


def awaited(run: Run) -> str:
    """Return which calls a run waits for, as far as it goes on and its events tell."""
    if run.get("status") not in ("started", "waiting"):
        return ""
    open_ = [f"{call.get('kind')} {call.get('name')}" for call in _calls(run) if _is_awaited(call)]
    more = f" and {shell.count(len(open_) - 1, 'call')} more" if len(open_) > 1 else ""
    return f"{open_[0]}{more}" if open_ else ""


def _took(run: Run) -> str:
    """Return how long a run took, or has taken until now."""
    began, last = int(run.get("started_ms") or 0), int(run.get("at_ms") or 0)
    if run.get("status") not in ENDED:
        last = max(last, shell.now_ms())
    return shell.duration(last - began) if began and last >= began else ""


def _call(call: Mapping[str, Any], began_ms: int, *, goes_on: bool) -> rich.text.Text:
    state = str(call.get("state") or "asked")
    asked, answered = int(call.get("asked_ms") or 0), int(call.get("answered_ms") or 0)
    facts = []
    if asked and began_ms:
        facts.append(f"at +{shell.duration(max(0, asked - began_ms))}")
    if asked and answered >= asked:
        facts.append(f"took {shell.duration(answered - asked)}")
    elif asked and goes_on and _is_awaited(call):
        facts.append(f"no answer for {shell.duration(max(0, shell.now_ms() - asked))}")
    usage = call.get("usage") or {}
    if usage:
        tokens = int(usage.get("input_tokens") or 0) + int(usage.get("output_tokens") or 0)
        facts.append(shell.count(tokens, "token"))
        facts.append(shell.money(int(usage.get("usd_nano") or 0)))
    text = rich.text.Text.assemble(
        (f"{call.get('number')} ", "dim"),
        f"{call.get('kind')} ",
        (str(call.get("name") or ""), "bold"),
        " ",
        (state, _COLORS.get(state, "")),
    )
    if facts:
        text.append("  " + " · ".join(facts))
    if call.get("approval"):
        text.append(f"\n{_approval(call, began_ms)}", style="dim")
    if call.get("detail"):
        text.append(f"\n{_short(str(call['detail']))}", style="dim")
    return text


def _is_awaited(call: Mapping[str, Any]) -> bool:
    """Say whether a call has no answer yet and its run waits for one; of one that it left it is told why."""
    state = call.get("state") or "asked"
    return state in WAITING and not (state == "asked" and call.get("detail"))


def _approval(call: Mapping[str, Any], began_ms: int) -> str:
    """Return who decided about a call, when and how; or that nobody has yet."""
    approval = call["approval"]
    if not call.get("verdict"):
        return f"waits for approval {approval}"
    verdict, _, reason = str(call["verdict"]).partition(": ")
    by = f" by {call['by']}" if call.get("by") else ""
    at = f" at +{shell.duration(max(0, int(call['decided_ms']) - began_ms))}" if began_ms else ""
    return _short(f"{verdict}{by}{at} ({approval}){': ' if reason else ''}{reason}")


def _ending(run: Run) -> rich.text.Text | None:
    """Return the line of a run's end, or `None` while it goes on."""
    status = str(run.get("status") or "")
    if status == "completed":
        outcome = run.get("outcome")
        return rich.text.Text(
            "returned " + _short(json.dumps(outcome, ensure_ascii=False)), style="green"
        )
    if status in ENDED:
        words = ": ".join(str(run[part]) for part in ("error", "detail") if run.get(part))
        return rich.text.Text(f"{status} {_short(words)}".rstrip(), style=_COLORS[status])
    return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _DETAIL_MAX else f"{line[:_DETAIL_MAX]}…"
