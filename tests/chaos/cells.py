"""The cells of the matrix: a fault each, and the controls that show that it would be noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.chaos import faults, machine
from tests.chaos.run import Fault as Met
from tests.integration.proxy import Fault

PAY_S, LONG_PAY_S = 6, 600
"""How long payments take during a rolling deploy, and during the one that takes hours."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fault and its controls.

    Args:
        name: In the table.
        fault: Makes the fault, for one run.
        controls: Protections that are taken out one at a time, each to be noticed.
        lacks: Says what this machine lacks for it; empty if nothing.
        long: Whether it runs only if it is asked for by name.
    """

    name: str
    fault: Callable[[], Met]
    controls: tuple[str, ...]
    lacks: Callable[[], str] = str
    long: bool = False


def _deaths(point: str, *controls: str) -> Cell:
    return Cell(name=f"kill-{point}", fault=lambda: faults.Deaths(point), controls=controls)


CELLS = (
    _deaths("after-poll", "offsets_at_poll", "no_dedupe"),
    _deaths("after-produce", "offsets_first"),
    _deaths("before-send-offsets", "offsets_first"),
    _deaths("after-send-offsets", "offsets_first"),
    _deaths("during-end-txn", "offsets_first"),
    _deaths("after-intent", "blind_to_intents"),
    _deaths("after-answer", "blind_to_intents"),
    _deaths("after-result", "no_receipts"),
    _deaths("before-reply", "result_after_reply"),
    Cell(name="freeze", fault=lambda: faults.Freezes(2), controls=("offsets_first",)),
    Cell(name="broker-freeze", fault=lambda: faults.BrokerFreezes(2), controls=("offsets_first",)),
    Cell(name="broker-kill", fault=lambda: faults.BrokerDeaths(2), controls=("offsets_first",)),
    Cell(
        name="end-txn-delayed",
        fault=lambda: faults.EndsMet(8, Fault.DELAY_REPLY, Fault.HOLD_REQUEST),
        controls=("offsets_first",),
    ),
    Cell(
        name="end-txn-swallowed",
        fault=lambda: faults.EndsMet(8, Fault.SWALLOW_REPLY),
        controls=("tries_again",),
    ),
    Cell(
        name="network-loss",
        fault=lambda: faults.Losses(4),
        controls=("offsets_first",),
        lacks=machine.lacks_network,
    ),
    Cell(
        name="full-disk",
        fault=lambda: faults.FullDisk(4, size_kb=3_072),
        controls=("stamp_ahead",),
        lacks=machine.lacks_disk,
    ),
    Cell(
        name="memory-limit",
        fault=faults.LittleMemory,
        controls=("offsets_at_poll",),
        lacks=machine.lacks_memory,
    ),
    Cell(name="rebalance-storm", fault=lambda: faults.Storm(5), controls=("rows_unread",)),
    Cell(name="rolling-upgrade", fault=faults.Upgrade, controls=("unpatched",)),
    Cell(
        name="rolling-deploy",
        fault=lambda: faults.Deploy(pay_s=PAY_S),
        controls=("no_hand_over",),
    ),
    Cell(
        name="rolling-deploy-long",
        fault=lambda: faults.Deploy(pay_s=LONG_PAY_S),
        controls=(),
        long=True,
    ),
)
