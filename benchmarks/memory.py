"""How many bytes an open run takes on one worker, at 100,000 of them."""

from __future__ import annotations

import gc
import os
import pathlib

from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Start, Task
from headwater.core.decider import Turn
from headwater.core.messages import Meta, Position, RunId
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.local import LocalLog
from headwater.runtime.table import Table
from headwater.sdk.app import App
from headwater.sdk.context import Context

RUNS = 100_000
CACHED = 10_000

app = App("bench", namespace="bench")


@app.agent
async def waiter(ctx: Context, task: str) -> str:
    """Wait for a person."""
    return str(await ctx.receive("decision"))


def resident() -> int:
    """Return the process's resident bytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Start the runs on one decider and its table, and print what they took."""
    calm_collector()
    parts = Parts(clock=confine.wall_ms, executions_max=CACHED)
    platform = Platform(app, LocalLog(), parts)
    names, decider = platform.names, platform.runs_decider("waiter")
    table = Table()
    task = Task(value=app.agents["waiter"].input.encode("a question of usual length, about a card"))
    gc.collect()
    before = resident()
    for number in range(RUNS):
        task_id = f"{number:032x}"
        run = str(RunId("waiter", 0, task_id))
        turn = Turn(
            table,
            at=Position("id", names.inbox("waiter"), 0, number),
            meta=Meta(id=task_id, tenant="t", correlation_id=task_id),
            now_ms=confine.wall_ms(),
        )
        decider.react(turn, Start(run=run, task_id=task_id, slot=run, task=task))
        table.apply(turn.layer)
    gc.collect()
    took = resident() - before
    print(f"memory median ratio {took / RUNS / 1024:.2f}")
    print(
        f"  {took / RUNS:,.0f} bytes an open run ({RUNS:,} runs, {len(table):,} rows, "
        f"{CACHED:,} of them suspended in memory); the ratio is to 1 KiB"
    )


if __name__ == "__main__":
    main()
