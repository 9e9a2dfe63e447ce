"""Feeding: what comes from outside: tasks, some twice; words of people, some absurd; garbage."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from headwater.assembly import Platform
from headwater.contracts.messages import Ask, Control, ReplyTo
from headwater.contracts.records import Draft
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta, RunId, task_id
from headwater.testing.simulator import desk

TASKS_MIN, TASKS_MAX = 2, 5


class Feeding:
    """Chooses what is fed.

    Args:
        platform: Whose topics.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.questions: dict[str, str] = {}
        """Question by task."""
        self._unsure: set[str] = set()
        """Tasks that were published with two contents: whichever came first counts."""
        self.counts: Counter[str] = Counter()
        """What is fed that is not just a task, how often."""

    def published(self, task: str) -> bytes | None:
        """Return the content that a task was published with, if it had but one."""
        question = self.questions.get(task)
        if question is None or task in self._unsure:
            return None
        return self._platform.app.agents["desk"].input.encode(question)

    def feed(self, dice: random.Random) -> list[Draft]:
        """Return what comes from outside: tasks, some twice; words of people, some absurd; garbage."""
        drafts: list[Draft] = []
        for number in range(dice.randint(TASKS_MIN, TASKS_MAX)):
            drafts += self._task(dice, number)
        drafts += [self._garbage(dice) for _ in range(dice.randint(0, 3))]
        # Whatever is said comes at any time, before what it speaks of as well.
        for n in range(len(drafts) - 1, 0, -1):
            if dice.random() < 0.3:  # noqa: PLR2004 - a third comes out of turn
                other = dice.randrange(n + 1)
                drafts[n], drafts[other] = drafts[other], drafts[n]
                self.counts["fed out of turn"] += n != other
        return drafts

    def _task(self, dice: random.Random, number: int) -> list[Draft]:
        question = f"{dice.choice(desk.KINDS)} {number}"
        tenant = dice.choice(["t1", "t1", "t2"])
        own = f"task-{number}"
        headers = (("ce_id", own.encode()), ("ce_source", b"sim"), ("ce_tenantid", tenant.encode()))
        topic = self._platform.names.cmd("desk")
        agent = self._platform.app.agents["desk"]

        def draft(text: str) -> Draft:
            value = agent.input.encode(text)
            return Draft(topic=topic, key=own.encode(), value=value, headers=headers)

        task = task_id(tenant, "desk", "sim", own)
        self.questions[task] = question
        drafts = [draft(question)]
        if dice.random() < 0.15:  # noqa: PLR2004 - some come twice
            drafts.append(draft(question))
            self.counts["published twice"] += 1
        if dice.random() < 0.05:  # noqa: PLR2004 - a few twice, and not the same
            drafts.append(draft(f"plain {number}"))
            self._unsure.add(task)
            self.counts["published twice, not the same"] += 1
        for _ in range(dice.choice([0, 0, 0, 1, 1, 2, 3])):
            verb = dice.choice(
                ["pause", "pause", "resume", "signal", "signal", "cancel", "discard"]
            )
            target = task if dice.random() < 0.7 else str(RunId("desk", dice.randrange(2), task))  # noqa: PLR2004 - most
            whose = tenant if dice.random() < 0.95 else "t3"  # noqa: PLR2004 - a few are strangers
            said = control(self._platform, whose, target, verb)
            self.counts[f"told to {verb}"] += 1
            self.counts["told by a stranger"] += whose != tenant
            drafts += [said, said] if dice.random() < 0.3 else [said]  # noqa: PLR2004 - some twice
        return drafts

    def _garbage(self, dice: random.Random) -> Draft:
        names = self._platform.names
        kind = dice.randrange(5)
        self.counts["garbage"] += 1
        if kind == 0:
            headers = (("ce_id", b"bad"), ("ce_tenantid", b"t1"))
            return Draft(topic=names.cmd("desk"), key=b"bad", value=b"no avro", headers=headers)
        if kind == 1:
            return Draft(topic=names.cmd("desk"), key=b"bad", value=None)
        if kind == 2:  # noqa: PLR2004 - the third of five
            return Draft(topic=names.inbox("admission"), key=b"t1", value=b"\xc3\x01garbage...")
        if kind == 3:  # noqa: PLR2004 - the fourth of five
            return Draft(topic=names.inbox("desk"), key=b"desk.0.nobody", value=b"garbage")
        ask = Ask(
            run="desk.0.nobody",
            number=1,
            name="balance",
            arguments=b"garbage",
            safety="read",
            not_after_ms=1 << 50,
            reply_to=ReplyTo(topic=names.inbox("desk"), partition=0, run="desk.0.nobody", number=1),
        )
        to = Address(names.req("tool.bank"), "t1|balance|x")
        sent = Sent(message=ask, to=to, meta=Meta(id="forged", tenant="t1"))
        return self._platform.envelope("nobody").seal(sent)


def control(platform: Platform, tenant: str, target: str, verb: Any, *, count: int = 0) -> Draft:
    """Return what somebody says to a task or a run; said again with the same count it is the same."""
    message = Control(target=target, verb=verb, name=desk.GO, value=desk.GONE, reason="simulated")
    meta = Meta(id=f"{target}/{verb}/{count}", tenant=tenant)
    to = platform.admission_address(tenant)
    return platform.envelope("people").seal(Sent(message=message, to=to, meta=meta))
