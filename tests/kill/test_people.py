"""People's decisions on a real Kafka: workers die between the decision and the act, and act once."""

from __future__ import annotations

import pathlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from tests.e2e import plain
from tests.e2e.fleet import Fleet
from tests.kill import people as subject
from tests.kill.provider import Provider

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.xdist_group("kill"),
    pytest.mark.timeout(3_600),
]

TASKS = 9
BOUND_S = 1_200.0
CODEC = Codec(Schemas())
ROLES = ("coordinator-1", "agents-1", "tools-1", "gateway-1")


class Office:
    """A fleet, a provider, and people at the gateway."""

    def __init__(self, bootstrap: str, path: pathlib.Path, *, held: int) -> None:
        self.provider = Provider(0.2, prompt=0, near=0, first=held)
        self.namespace = f"people-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap
        self.fleet = Fleet(
            bootstrap,
            self.namespace,
            path,
            "",
            {
                "HEADWATER_APP": "tests.kill.people:app",
                "HEADWATER_LOOPS__LEASE_S": "3",
                "HEADWATER_KAFKA__PARTITIONS": "2",
                subject.URL: self.provider.url,
            },
        )
        self.fleet.command("topics", "apply", "--yes")
        for instance in ROLES:
            self.fleet.start(instance)
        found: list[str] = []
        log = path / "gateway-1.log"
        self.until(
            lambda: found.extend(re.findall(r"HTTP at (\S+)", log.read_text())) or bool(found)
        )
        self.http = httpx.Client(base_url=found[0], timeout=180)
        self.url = found[0]

    def publish(self, *accounts: str) -> None:
        """Have each account paid."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "acks": "all"})
        encode = subject.app.agents["payer"].input.encode
        for account in accounts:
            producer.produce(
                f"{self.namespace}.cmd.payer.v1",
                value=encode(account),
                headers={"ce_id": account, "ce_source": "people", "ce_tenantid": "t1"},
            )
        assert producer.flush(plain.BOUND_S) == 0

    def asking(self) -> dict[str, dict[str, Any]]:
        """Return what waits for people, by account."""
        found = self.http.get("/api/v1/approvals", params={"status": "open", "limit": "100"})
        return {of["arguments"]["account"]: of for of in found.json()["approvals"]}

    def decide(self, of: dict[str, Any], verdict: str, **more: Any) -> dict[str, Any]:
        """Say a verdict, again and again until it was taken: who takes it may be starting."""
        body = {"digest": of["digest"], "by": "ana", "reason": "looked", **more}
        path = f"/api/v1/approvals/{of['id']}/{verdict}"
        said: list[httpx.Response] = []

        def taken() -> bool:
            said.append(self.http.post(path, json=body, params={"wait_s": "60"}))
            return said[-1].status_code != 202

        self.until(taken)
        answer = said[-1]
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def outcomes(self) -> dict[str, str]:
        """Return each account's outcome."""
        shape = subject.app.agents["payer"].output
        found: dict[str, str] = {}
        for record in plain.read(self._bootstrap, [f"{self.namespace}.evt.payer.v1"]):
            account = record["headers"]["ce_correlationid"]
            assert account not in found, f"{account} has two outcomes"
            found[account] = shape.decode(record["value"], subject.app.schemas)
        return found

    def asks(self) -> list[Ask]:
        """Return the requests that were sent."""
        records = plain.read(self._bootstrap, [f"{self.namespace}.req.tool.bank.v1"])
        return [CODEC.decode(record["value"]) for record in records]

    def until(self, condition: Callable[[], bool], bound_s: float = BOUND_S) -> None:
        """Wait for what others do."""
        until = time.monotonic() + bound_s
        while not condition():
            assert time.monotonic() < until, f"not within {bound_s:g} s"
            time.sleep(0.05)

    def end(self) -> None:
        """Stop everything."""
        self.http.close()
        self.fleet.stop()
        self.provider.close()


@pytest.fixture
def office(kafka: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(*, held: int = 0) -> Office:
        made.append(Office(kafka, tmp_path, held=held))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_a_worker_that_dies_between_approval_and_act_acts_once(office, say) -> None:
    """Approved while no agents live; killed while others are being approved; each is paid once."""
    one = office()
    accounts = [f"much-{number}" for number in range(TASKS)]
    one.publish(*accounts)
    one.until(lambda: set(one.asking()) == set(accounts))
    assert one.asks() == []
    asked = one.asking()
    one.fleet.kill("agents-1")
    for account in accounts[: TASKS // 3]:
        assert one.decide(asked[account], "approve")["status"] == "approved"
    assert one.asks() == []
    one.fleet.start("agents-1")
    one.until(lambda: len(one.asks()) >= TASKS // 3)
    for account in accounts[TASKS // 3 : -1]:
        assert one.decide(asked[account], "approve")["status"] == "approved"
    for victim in ("agents-1", "coordinator-1"):
        one.fleet.kill(victim)
        one.fleet.start(victim)
    assert one.decide(asked[accounts[-1]], "deny")["status"] == "denied"
    one.until(lambda: len(one.outcomes()) >= TASKS)
    paid = one.provider.times()
    say(f"{sum(paid.values())} payments of {TASKS - 1} approved, {len(one.asks())} requests sent")
    assert paid == dict.fromkeys(accounts[:-1], 1)
    assert sorted(ask.number for ask in one.asks()) == [1] * (TASKS - 1)
    paid_for = {account: f"paid {account}" for account in accounts[:-1]}
    denied = "Denied: call pay: denied by ana: looked"
    assert one.outcomes() == paid_for | {accounts[-1]: denied}


def test_a_call_in_doubt_is_made_again_by_a_persons_word_alone(office, say) -> None:
    """Killed in the middle of payments: a person says what became of each."""
    one = office(held=TASKS)
    accounts = [f"some-{number}" for number in range(TASKS)]
    one.publish(*accounts)
    one.provider.wait(lambda: len(one.provider.asked) >= TASKS, BOUND_S)
    one.fleet.kill("tools-1")
    one.provider.dead.set()
    one.fleet.start("tools-1")
    one.until(lambda: set(one.asking()) == set(accounts))
    asked = one.asking()
    assert {of["about"] for of in asked.values()} == {"doubt"}
    assert one.provider.times() == dict.fromkeys(accounts, 1), "none is repeated by the machine"
    third = TASKS // 3
    happened, not_happened, open_ = (
        accounts[:third],
        accounts[third : 2 * third],
        accounts[2 * third :],
    )
    for account in happened:
        one.decide(asked[account], "happened", value="on the statement")
    one.fleet.kill("agents-1")
    for account in not_happened:
        one.decide(asked[account], "not-happened")
    one.fleet.kill("tools-1")
    one.fleet.start("tools-1")
    one.fleet.start("agents-1")
    for account in open_:
        one.decide(asked[account], "give-up")
    one.until(lambda: len(one.outcomes()) >= TASKS)
    outcomes, paid = one.outcomes(), one.provider.times()
    again = [account for account, times in paid.items() if times > 1]
    say(f"{TASKS} in doubt, {len(again)} made again after a person said that they had not happened")
    assert paid == dict.fromkeys(happened + open_, 1) | dict.fromkeys(not_happened, 2)
    assert {outcomes[account] for account in happened} == {"on the statement"}
    assert [outcomes[account] for account in not_happened] == [f"paid {of}" for of in not_happened]
    assert {outcomes[account] for account in open_} == {
        "InDoubt: nobody knows whether pay happened; ana could say, given-up: looked"
    }
