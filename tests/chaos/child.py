"""One process of the fleet, armed and sabotaged as its environment says; then `headwater` itself.

`python -m tests.chaos.child run --role ...`
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from typing import Any

from tests.chaos import points, sabotage
from tests.chaos.world import HANDED, World

from headwater import provisioning
from headwater.cli import main
from headwater.durable import confine
from headwater.log.kafka_config import KafkaConfig
from headwater.runtime.answering import Answering
from headwater.settings import Kafka
from headwater.supervisor import Supervisor

POINT, KIND, SEED = "CHAOS_POINT", "CHAOS_SABOTAGE", "CHAOS_SEED"
DEATHS, DEATHS_MAX = "CHAOS_DEATHS", "CHAOS_DEATHS_MAX"
CALL_S, TASKS = "CHAOS_CALL_S", "CHAOS_TASKS"


def _quick(call_s: float) -> None:
    """Wait less long for the cluster's answers, so that a fault of seconds is one."""
    real = provisioning.config_of

    def config_of(kafka: Kafka, **more: Any) -> KafkaConfig:
        return dataclasses.replace(real(kafka, **more), call_s=call_s)

    provisioning.config_of = config_of


def _tell() -> None:
    """Tell the world when a call is handed over; a process that is frozen after that may act late."""
    real, world = Answering.reply, World.of_this_process()

    async def reply(self: Answering, item: Any, **kwargs: Any) -> Any:
        world.note(HANDED, item.ask.name, "", item.call_id)
        return await real(self, item, **kwargs)

    Answering.reply = reply  # type: ignore[method-assign] # seen, not changed


def _tell_starts(path: pathlib.Path) -> None:
    """Write down when a supervisor starts its process anew: the one before has died."""
    real = Supervisor._start

    def start(self: Supervisor) -> Any:
        with path.open("a") as file:
            file.write(f"{confine.wall_ms()}\n")
        return real(self)

    Supervisor._start = start  # type: ignore[method-assign] # seen, not changed


def start(arguments: list[str]) -> int | None:
    """Arm, sabotage, run."""
    given = os.environ
    instance, directory = given.get("HEADWATER_INSTANCE", ""), pathlib.Path(given[DEATHS])
    name = given.get(POINT) or next(iter(points.PASSES))
    passes = points.Points(
        name,
        seed=int(given.get(SEED, "0")),
        instance=instance,
        deaths=directory,
        deaths_max=int(given.get(DEATHS_MAX, "0")) if given.get(POINT) else 0,
        passes=points.passes(name, int(given.get(TASKS, points.TASKS))),
    )
    _tell()
    _tell_starts(directory / f"{instance}.starts")
    if given.get(KIND):
        sabotage.KINDS[given[KIND]](passes)
    if given.get(POINT):
        points.arm(passes)
    if given.get(CALL_S):
        _quick(float(given[CALL_S]))
    return main.main(arguments)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
