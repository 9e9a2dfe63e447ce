"""People: who decide, resume, cancel, and send again, now and then wrongly."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.assembly import Platform
from headwater.contracts import replays
from headwater.contracts.approvals import ApprovalEvent, Decide
from headwater.contracts.messages import RunEvent
from headwater.contracts.quarantine import reason
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent
from headwater.core.messages import Meta
from headwater.log.local import LocalLog, LocalReader
from headwater.testing.invariants.book import ENDED
from headwater.testing.simulator.feeding import control
from headwater.testing.simulator.outside import Outside

SAID_MAX = 6
"""How often people speak to one run before they give up."""


class People:
    """Those who look after a fleet; they read what it tells.

    Args:
        platform: Whose topics.
        log: The log.
        outside: What they look up when a call is in doubt.
        questions: Question by task.
    """

    def __init__(
        self, platform: Platform, log: LocalLog, outside: Outside, questions: Mapping[str, str]
    ) -> None:
        self._platform = platform
        self._outside = outside
        self._questions = questions
        names = platform.names
        self._life = reader(log, names.evt("runs"))
        self._last: dict[str, RunEvent] = {}
        self._asked = reader(log, names.evt("approvals"))
        self._petitions: dict[str, ApprovalEvent] = {}
        self._decided = 0
        aside = [topic for topic in sorted(log.topics()) if ".quarantine." in topic]
        self._letters = reader(log, *aside, names.dlq("desk"))
        self._put_aside: list[Record] = []
        self._said: dict[str, int] = {}
        self._patience = SAID_MAX
        self._words = 0
        self.counts: Counter[str] = Counter()
        """What they did that is not just their duty, how often."""

    @property
    def asked(self) -> int:
        """How much they were asked."""
        return len(self._petitions)

    def begin_again(self, patience: int = SAID_MAX) -> None:
        """Have patience once more with everyone: so many words."""
        self._patience = patience
        self._said.clear()

    def speak(self) -> Sequence[Draft]:
        """Resume what is paused, answer what asks, cancel what waits for nothing."""
        said: list[Draft] = []
        for event in self._news():
            self._last[event.run or event.task_id] = event
        for target, event in self._last.items():
            verb = self._word(event)
            if verb and self._said.get(target, 0) < self._patience:
                self._said[target] = self._said.get(target, 0) + 1
                self._words += 1
                said.append(control(self._platform, event.tenant, target, verb, count=self._words))
        return [*said, *self._decisions(random.Random(f"people/{self._decided}"))]  # noqa: S311 - a seeded world

    def chatter(self, dice: random.Random) -> Draft | None:
        """Return what somebody says meanwhile: a decision, perhaps a wrong one, or a record once more."""
        if dice.random() < 0.3:  # noqa: PLR2004 - a third are operators
            said = self._replay(dice)
            self.counts["sent again by an operator"] += said is not None
            return said
        self._hear()
        known = [event for event in self._petitions.values() if event.status == "asked"]
        if not known:
            return None
        return self._decision(dice.choice(known), dice, honest=dice.random() < 0.7)  # noqa: PLR2004 - most

    def _news(self) -> list[RunEvent]:
        events = []
        for record in self._life.poll(records_max=10_000, wait_ms=0):
            with contextlib.suppress(Exception):
                event = self._platform.codec.decode(record.value or b"")
                if isinstance(event, RunEvent):
                    events.append(event)
        return events

    def _replay(self, dice: random.Random) -> Draft | None:
        """Send a record again that was put aside, or a dead letter as a new task."""
        kept = self._letters.poll(records_max=10_000, wait_ms=0)
        self._put_aside += kept
        if not self._put_aside:
            return None
        record, names = dice.choice(self._put_aside), self._platform.names
        why, replay = reason(record), f"replay-{dice.randrange(3)}"
        if record.partition.topic == names.dlq("desk"):
            anew = replays.Anew(
                replay=replay,
                topic=names.cmd("desk"),
                repeat_writes=bool(dice.getrandbits(1)),
            )
            sent = anew(record)
        else:
            sent = replays.back(
                record,
                why,
                replay=replay,
                topic=why.source.topic,
                partition=why.source.number,
                identity=f"{why.source}/{why.offset}",
            )
        return sent if isinstance(sent, Draft) else None

    def _hear(self) -> None:
        for record in self._asked.poll(records_max=10_000, wait_ms=0):
            event = self._platform.codec.decode(record.value or b"")
            if isinstance(event, ApprovalEvent) and event.status != "refused":
                self._petitions[event.approval] = event

    def _decisions(self, dice: random.Random) -> list[Draft]:
        """Decide what is still asked."""
        self._hear()
        return [
            self._decision(event, dice, honest=True)
            for event in self._petitions.values()
            if event.status == "asked"
        ]

    def _decision(self, event: ApprovalEvent, dice: random.Random, *, honest: bool) -> Draft:
        """Return a decision; one that is not honest is about something else, or from the wrong person."""
        self._decided += 1
        verdict: Any = dice.choice(["approve", "approve", "deny"])
        value = b""
        if event.about == "doubt":
            found = self._outside.done.get(f"{event.run}/{event.number}")
            verdict = "not-happened" if found is None else "happened"
            if found is not None:
                value = self._platform.app.tools[event.name].encode(found)
        wrong = "" if honest else dice.choice(["digest", "group", "verdict"])
        self.counts[f"decided with the wrong {wrong}" if wrong else "decided"] += 1
        decide = Decide(
            approval=event.approval,
            verdict="give-up" if wrong == "verdict" and event.about != "doubt" else verdict,
            digest=b"another" if wrong == "digest" else event.digest,
            groups=("strangers",) if wrong == "group" else ("bosses", "*"),
            reason="simulated",
            value=value,
        )
        meta = Meta(id=f"decision/{self._decided}", tenant=event.tenant, actor="boss")
        to = self._platform.approvals_address(event.tenant)
        return self._platform.envelope("people").seal(Sent(message=decide, to=to, meta=meta))

    def _word(self, event: RunEvent) -> str:
        """Return what a person says to a run when nothing else happens."""
        if event.status == "paused" or event.reason.startswith("NonDeterminismError"):
            return "resume"
        if event.status == "failed" and not event.parent and event.attempt == 1:
            return "resume" if int(event.task_id[-1], 16) % 2 else ""  # half of those that failed
        if event.status in ENDED or event.status == "held" or event.parent:
            return ""
        kind = self._questions.get(event.task_id, "").partition(" ")[0]
        return {"ask": "signal", "wait": "cancel", "cleanup": "cancel"}.get(kind, "")


def reader(log: LocalLog, *topics: str) -> LocalReader:
    """Return a reader of whole topics."""
    places = [Partition(topic, n) for topic in topics for n in range(log.partitions(topic))]
    return log.read(dict.fromkeys(places, 0))
