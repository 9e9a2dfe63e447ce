"""The cells of the matrix: a fault each, and the controls that show that it would be noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.chaos import faults
from tests.chaos.run import Fault


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fault and its controls.

    Args:
        name: In the table.
        fault: Makes the fault, for one run.
        controls: Protections that are taken out one at a time, each to be noticed.
        lacks: Says what this machine lacks for it; empty if nothing.
    """

    name: str
    fault: Callable[[], Fault]
    controls: tuple[str, ...]
    lacks: Callable[[], str] = str


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
    Cell(name="broker-kill", fault=lambda: faults.BrokerDeaths(2), controls=("offsets_first",)),
)
