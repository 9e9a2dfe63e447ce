"""The door of people's decisions, against an app in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tests.unit.doors import described

import headwater
from headwater.approvals.rules import Rules
from headwater.doors import callers
from headwater.doors.approvals import Approvals
from headwater.doors.callers import Caller
from headwater.doors.problems import HANDLERS
from headwater.errors import SettingsError
from headwater.testing import App
from headwater.views.approvals import ApprovalIndex

bank = headwater.App("bank")


@bank.tool(effect="irreversible", approve_if=lambda cents: cents > 100, approve_to="group:payments")
async def pay(cents: int) -> int:
    return cents


@bank.agent
async def desk(ctx: headwater.Context, cents: int) -> str:
    try:
        return f"paid {await pay(cents)}"
    except headwater.Denied as error:
        return str(error)


TOKENS = {
    "ana": Caller(tenant="t1", actor="ana", groups=("payments",)),
    "bob": Caller(tenant="t1", actor="bob"),
    "kim": Caller(tenant="t1", actor="kim", groups=("payments",)),
    "eve": Caller(tenant="t2", actor="eve", groups=("payments",)),
    "nobody": Caller(tenant="t1"),
    "operator": Caller(actor="oz", groups=("*",)),
}


class World:
    """A door in front of an app in memory, which goes on while somebody waits."""

    def __init__(self, t: App, tokens: dict[str, Caller]) -> None:
        self.t = t
        platform = t.platform
        self.index = ApprovalIndex(platform.names.evt("approvals"))
        self._view = platform.projecting(self.index)
        door = Approvals(
            log=t.log,
            envelope=platform.envelope("gateway"),
            address=platform.approvals_address,
            index=self.index,
            results={name: tool.result for name, tool in bank.tools.items()},
            clock=platform.parts.clock,
            callers=tokens,
        )
        app = Starlette(routes=door.routes(), exception_handlers=HANDLERS)
        self.http = described.client(app, {name: of.input for name, of in bank.agents.items()})

    async def go_on(self) -> None:
        await self.t.settle()
        while self._view.step():
            pass

    async def asked(self) -> dict[str, Any]:
        """Start a payment that a person has to approve, and return what is asked."""
        self.run = await self.t.start(desk, 500, tenant="t1", actor="kim")
        await self.go_on()
        (found,) = self.index.find(status="open")
        return found

    async def send(self, verdict: str, asked: dict[str, Any], token: str = "", **body: Any) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        path = f"/api/v1/approvals/{asked['id']}/{verdict}"
        params = {"wait_s": "5"}
        given = {"digest": asked["digest"], **body}
        sending = asyncio.create_task(
            self.http.post(path, json=given, headers=headers, params=params)
        )
        while not sending.done():
            await self.go_on()
            await asyncio.sleep(0)
        return sending.result()

    async def get(self, path: str, token: str = "", **params: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.http.get(f"/api/v1/approvals{path}", headers=headers, params=params)


def run(body: Callable[[World], Awaitable[None]], tokens: dict[str, Caller] | None = None) -> None:
    async def main() -> None:
        async with App(bank) as t:
            world = World(t, tokens or {})
            await body(world)
            await world.http.aclose()
            world.index.close()

    asyncio.run(main())


def test_a_member_of_the_group_approves_and_the_call_is_sent() -> None:
    """Whoever waits hears that it was taken; once more is the same."""

    async def body(world: World) -> None:
        asked = await world.asked()
        assert (await world.get("", "ana")).json()["approvals"] == [asked]
        assert (await world.get(f"/{asked['id']}", "ana")).json() == asked
        taken = await world.send("approve", asked, "ana", reason="checked")
        assert (taken.status_code, taken.json()["status"]) == (200, "approved")
        assert (taken.json()["by"], taken.json()["reason"]) == ("ana", "checked")
        again = await world.send("approve", asked, "ana")
        assert (again.status_code, again.json()["status"]) == (200, "approved")
        assert await world.run.result() == "paid 500"

    run(body, TOKENS)


@pytest.mark.parametrize(
    ("token", "verdict", "body", "status", "words"),
    [
        ("kim", "approve", {}, 409, "kim asked for the run, and cannot decide about it"),
        ("bob", "approve", {}, 409, "somebody of the group payments decides this"),
        ("ana", "approve", {"digest": "00" * 16}, 409, "it is about other arguments"),
        ("ana", "give-up", {}, 409, "give-up is no answer to it"),
        ("nobody", "approve", {}, 403, "names no actor"),
        ("ana", "approve", {"by": "bob"}, 403, "the token is ana's, not bob's"),
        ("ana", "approve", {"digest": "xx"}, 422, "send the digest of what you looked at"),
        ("ana", "approve", {"digest": 7}, 422, "send the digest of what you looked at"),
        ("ana", "happened", {}, 422, "say what pay returned"),
        ("ana", "happened", {"value": "much"}, 422, "value: "),
        ("eve", "approve", {}, 404, "nobody is asked"),
        ("ana", "bless", {}, 404, "there are: approve, deny"),
        ("stranger", "approve", {}, 401, "Bearer"),
    ],
)
def test_who_may_not_and_what_cannot_be_are_refused(
    token: str, verdict: str, body: dict[str, Any], status: int, words: str
) -> None:
    """In words that say what to do, and nothing is decided."""

    async def act(world: World) -> None:
        asked = await world.asked()
        answer = await world.send(verdict, asked, token, **body)
        assert (answer.status_code, answer.headers["content-type"]) == (
            status,
            "application/problem+json",
        )
        assert words in answer.json()["detail"]
        assert world.run.status == "started"

    run(act, TOKENS)


def test_tenants_see_their_own() -> None:
    """An operator's token sees all, and may ask for one tenant's."""

    async def body(world: World) -> None:
        asked = await world.asked()
        assert (await world.get("", "eve")).json() == {"approvals": []}
        assert (await world.get("", "eve", tenant="t1")).status_code == 403
        assert (await world.get(f"/{asked['id']}", "eve")).status_code == 404
        assert (await world.get("", "operator")).json() == {"approvals": [asked]}
        assert (await world.get("", "operator", tenant="t2")).json() == {"approvals": []}
        taken = await world.send("deny", asked, "operator", reason="no")
        assert taken.json()["status"] == "denied"
        assert await world.run.result() == "call pay: denied by oz: no"

    run(body, TOKENS)


def test_without_tokens_whoever_is_there_says_who_they_are() -> None:
    """Only loopback has no tokens."""

    async def body(world: World) -> None:
        asked = await world.asked()
        for by in ("", 7, "a\nb"):
            assert (await world.send("approve", asked, by=by)).status_code == 422
        assert (await world.send("approve", asked, by="kim")).status_code == 409
        assert (await world.send("approve", asked, by="ana")).json()["by"] == "ana"

    run(body)


def test_bodies_that_are_no_decision_are_refused() -> None:
    """An object, in JSON, of a bounded size."""

    async def body(world: World) -> None:
        asked = await world.asked()
        path = f"/api/v1/approvals/{asked['id']}/approve"
        assert (await world.http.post(path, content=b"[1]")).status_code == 422
        assert (await world.http.post(path, content=b"{")).status_code == 422
        assert (await world.http.post(path, content=b" " * 600_000)).status_code == 413
        sent = await world.http.post(path, json={"digest": asked["digest"], "by": "ana"})
        assert (sent.status_code, sent.json()["sent"]) == (202, "approve")
        waited = await world.http.post(
            path, json={"digest": asked["digest"], "by": "ana"}, params={"wait_s": "0.1"}
        )
        assert waited.status_code == 202, "nothing moved meanwhile"

    run(body)


def test_a_check_refuses_what_would_not_be_sent_and_sends_nothing() -> None:
    """The same rules as the decision's, up to the log; what is asked stays open."""

    async def body(world: World) -> None:
        asked = await world.asked()
        for verdict, wrong in (
            ("happened", {"value": "x"}),
            ("approve", {"digest": "xx"}),
            ("approve", {"by": ""}),
        ):
            said = await world.send(f"{verdict}/check", asked, **{"by": "ana", **wrong})
            assert said.status_code == 422, (verdict, wrong)
        for verdict in ("approve", "deny"):
            said = await world.send(f"{verdict}/check", asked, by="ana")
            told = {"approval": asked["id"], "verdict": verdict, "again": False, "sent": False}
            assert (said.status_code, said.json()) == (200, told)
        assert (await world.send("decide/check", asked, by="ana")).status_code == 404
        await world.go_on()
        assert world.index.find(status="open") == [asked]

    run(body)


UNFIT: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "requester": ("foreign", "kim", "approve", {}),
    "group": ("foreign", "bob", "approve", {}),
    "digest": ("other", "ana", "approve", {"digest": "00" * 16}),
    "verdict": ("other", "ana", "give-up", {}),
    "single use": ("stale", "operator", "deny", {}),
}


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("on", [True, False], ids=["", "control"])
def test_a_check_says_what_the_decision_would_be_told(
    monkeypatch: pytest.MonkeyPatch, name: str, on: bool
) -> None:
    """One set of rules for both: in the same words; the control has one rule off, for both."""
    rule, token, verdict, more = UNFIT[name]

    async def body(world: World) -> None:
        asked = await world.asked()
        if name == "single use":
            await world.send("approve", asked, "ana")
        if not on:
            monkeypatch.setattr(Rules, rule, lambda rules, row, said: "")
        checked = await world.send(f"{verdict}/check", asked, token, **more)
        if not on:
            assert checked.status_code == 200
            return
        decided = await world.send(verdict, asked, token, **more)
        assert (checked.status_code, decided.status_code) == (409, 409)
        assert checked.json() == decided.json()

    run(body, TOKENS)


@pytest.mark.parametrize("on", [True, False], ids=["", "control"])
def test_a_check_knows_that_the_time_is_over_before_anybody_says_so(
    monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    """By the clock, as the decision would; from then on it is over in the decision's words."""

    async def body(world: World) -> None:
        asked = await world.asked()
        path = f"/api/v1/approvals/{asked['id']}/approve/check"
        told = {"digest": asked["digest"], "by": "ana"}
        monkeypatch.setattr(world.t, "now_ms", asked["expires_ms"])
        if not on:
            monkeypatch.setattr(Rules, "late", lambda rules, row, said: "")
        checked = await world.http.post(path, json=told)
        assert (checked.status_code == 409) is on
        assert ("it has expired" in checked.text) is on
        decided = await world.send("approve", asked, by="ana")
        assert (await world.http.post(path, json=told)).json() == decided.json()

    run(body)


def test_a_check_knows_the_same_decision_once_more() -> None:
    """It is no refusal; it would change nothing."""

    async def body(world: World) -> None:
        asked = await world.asked()
        await world.send("approve", asked, "ana")
        for token, verdict, status in (
            ("ana", "approve", 200),
            ("operator", "approve", 409),
            ("ana", "deny", 409),
        ):
            checked = await world.send(f"{verdict}/check", asked, token)
            assert checked.status_code == status, (token, verdict)
            assert checked.json().get("again", False) is (status == 200)

    run(body, TOKENS)


def test_a_tokens_file_names_groups(tmp_path: Any) -> None:
    """A token says tenant, actor and groups; whatever else is in it is refused."""
    file = tmp_path / "tokens.json"
    file.write_text('{"s": {"tenant": "t1", "actor": "ana", "groups": ["payments"]}}')
    assert callers.read(file) == {"s": Caller(tenant="t1", actor="ana", groups=("payments",))}
    assert callers.read(None) == {}
    for wrong, words in {
        '{"s": {"groups": "payments"}}': "token 1: groups 'payments' is no list of names",
        '{"a": {}, "s": {"group": []}}': "token 2: there is no field 'group'",
        '{"s": {"tenant": "T 1"}}': "token 1: tenant 'T 1': 1 to 64 of",
        '{"s": {"tenant": null}}': "token 1: tenant None: 1 to 64 of",
        '{"s": {"actor": 7}}': "token 1: actor 7 is no name",
        '{"ana": "s3cret"}': "token 1: what it names is no object",
        "{}": "it names no token",
        "[]": "it names no token",
        "{": "line 1 column 2",
    }.items():
        file.write_text(wrong)
        with pytest.raises(SettingsError, match="HEADWATER_HTTP__TOKENS_FILE") as refused:
            callers.read(file)
        assert words in str(refused.value)
        assert "s3cret" not in str(refused.value)
    with pytest.raises(SettingsError, match="HEADWATER_HTTP__TOKENS_FILE"):
        callers.read(tmp_path / "none")
