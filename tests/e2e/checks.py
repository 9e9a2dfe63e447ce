"""What must hold after everything has died at least once, read back by plain clients."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping
from typing import Any

from tests.e2e import plain

DESK = "desk"


class Book:
    """Everything a fleet wrote, read committed.

    Args:
        bootstrap: The cluster.
        namespace: The fleet's.
        schemas: Writer schemas by fingerprint.
    """

    def __init__(self, bootstrap: str, namespace: str, schemas: Mapping[str, Any]) -> None:
        self.schemas = dict(schemas)
        self._bootstrap, self._namespace = bootstrap, namespace
        self.outcomes = self._read(f"evt.{DESK}")
        self.children = self._read("evt.scorer")
        self.requests = self._read("req.model") + self._read("req.tool.text")
        self.rows = self._read(f"state.runs.{DESK}", "state.runs.scorer")
        self.slots = self._read("state.admission")
        self.refused = self._read(f"quarantine.cmd.{DESK}")

    def _read(self, *names: str) -> list[dict[str, Any]]:
        return plain.read(self._bootstrap, [f"{self._namespace}.{name}.v1" for name in names])

    def violations(self, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return what does not hold.

        Args:
            expected: A question's id to the answer it has in a run without faults.
        """
        return [
            *self._of_outcomes(expected),
            *self._of_children(len(expected)),
            *self._of_requests(len(expected)),
            *self._of_turns(),
            *self._of_slots(len(expected)),
        ]

    def _of_outcomes(self, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
        found: dict[str, list[Any]] = collections.defaultdict(list)
        wrong = []
        for record in self.outcomes:
            headers = record["headers"]
            if headers["ce_type"] != f"{DESK}.completed":
                wrong.append(f"{headers['ce_correlationid']} ended as {headers['ce_type']}")
                continue
            answer = plain.datum(record["value"], self.schemas)
            found[headers["ce_correlationid"]].append(answer)
        for event_id, answer in expected.items():
            answers = found.get(event_id, [])
            if len(answers) != 1:
                wrong.append(f"{event_id} has {len(answers)} outcomes")
            elif answers[0] != answer:
                wrong.append(f"{event_id} has {answers[0]} and not {answer}")
        wrong += [f"{event_id} was never asked" for event_id in found.keys() - expected.keys()]
        return wrong

    def _of_children(self, count: int) -> list[str]:
        ends = collections.Counter(record["key"] for record in self.children)
        wrong = [f"child {run} has {n} outcomes" for run, n in ends.items() if n != 1]
        return wrong + ([f"{len(ends)} children for {count} tasks"] if len(ends) != count else [])

    def _of_requests(self, count: int) -> list[str]:
        """No request is sent twice: (run, number) is unique, three a task and one a child."""
        sent: collections.Counter[tuple[str, int]] = collections.Counter()
        for record in self.requests:
            ask = plain.datum(record["value"], self.schemas)
            sent[ask["run"], ask["number"]] += 1
        wrong = [f"request {call} was sent {n} times" for call, n in sent.items() if n != 1]
        return wrong + (
            [f"{len(sent)} requests for {count} tasks"] if len(sent) != 4 * count else []
        )

    def _of_turns(self) -> list[str]:
        """A run's entries are numbered 1, 2, 3 in the order in which they were committed."""
        turns: dict[str, list[int]] = collections.defaultdict(list)
        for record in self.rows:
            if record["key"].startswith("Entry\x00") and record["value"] is not None:
                run, _, rest = record["raw_key"].removeprefix(b"Entry\x00\x02").partition(b"\x00")
                turns[run.decode()].append(int.from_bytes(rest[1:9], "big") - 2**63)
        return [
            f"run {run} took its turns as {seqs}"
            for run, seqs in turns.items()
            if seqs != [*range(1, len(seqs) + 1)]
        ]

    def _of_slots(self, count: int) -> list[str]:
        last = {
            record["raw_key"]: record["value"]
            for record in self.slots
            if record["key"].startswith("Slot\x00")
        }
        still = [key for key, value in last.items() if value is not None]
        wrong = [f"{len(still)} slots are open"] if still else []
        return wrong + ([f"{len(last)} slots for {count} tasks"] if len(last) != count else [])


def schemas(text: str) -> dict[str, Any]:
    """Return writer schemas by fingerprint, from JSON lines."""
    return {fp: plain.parse_schema(schema) for fp, schema in json.loads(text).items()}
