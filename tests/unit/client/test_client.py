"""The client: against a server of the tests' own on loopback that breaks where a test says."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import headwater.client
from headwater.client import Client, RefusedError
from headwater.errors import AgentError, TransientError

RUN = {"task_id": "t1", "run": "a.0.t1", "status": "completed", "outcome": "done"}


def answer(body: object, status: int = 200) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (status, len(data), data)
    )


def events(*told: tuple[str, str, object], whole: bool = True) -> bytes:
    """Return a stream of (id, type, data); one that is not whole breaks after them."""
    blocks = "".join(
        (f"id: {own}\r\n" if own else "") + f"event: {kind}\r\ndata: {json.dumps(data)}\r\n\r\n"
        for own, kind, data in told
    ).encode()
    head = (
        b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"%x\r\n%b\r\n" % (len(blocks), blocks) + (b"0\r\n\r\n" if whole else b"")


class Server:
    """Answers each connection with the next of its bytes; the last stays. Empty bytes: it breaks."""

    def __init__(self, *says: bytes) -> None:
        self.says = [*says]
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.lower().split("\r\n")
        length = next((int(n[15:]) for n in lines if n.startswith("content-length:")), 0)
        body = (await reader.readexactly(length)).decode()
        self.asked.append(head + body)
        writer.write(self.says[0] if len(self.says) == 1 else self.says.pop(0))
        await writer.drain()
        writer.close()


def call(server: Server, body: Callable[[Client], Awaitable[object]]) -> object:
    async def main() -> object:
        async with server.serve() as url, Client(url, token="secret", tenant="t") as hw:  # noqa: S106 - no real one
            return await body(hw)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the waits between tries."""
    sleep = asyncio.sleep
    monkeypatch.setattr("headwater.client.asyncio.sleep", lambda _: sleep(0))


def test_task_is_sent_again_with_the_same_id():
    """A gateway that broke after it took the task sees the same `Idempotency-Key` again."""
    server = Server(b"", answer({"detail": "away"}, 503), answer(RUN))
    assert call(server, lambda hw: hw.run("a", {"x": 1}, output=str)) == "done"
    keys = {line for ask in server.asked for line in ask.split("\r\n") if "idempotency" in line}
    assert (len(server.asked), len(keys)) == (3, 1)
    assert "authorization: Bearer secret" in server.asked[0]
    assert "ce-tenantid: t" in server.asked[0]


def test_given_id_is_the_tasks_own():
    """Whoever names the task can ask for it again."""
    server = Server(answer(RUN, 202))
    task = call(server, lambda hw: hw.submit("a", "x", id="c-17"))
    assert task.id == "t1"
    assert "idempotency-key: c-17" in server.asked[0]


def test_signal_is_not_sent_again_when_it_may_have_arrived():
    """A signal has no id: twice would be two."""
    for broken in (b"", answer({"detail": "away"}, 503)):
        server = Server(broken)
        with pytest.raises(TransientError):
            call(server, lambda hw: headwater.client.Task(hw, "t1", str).signal("go", 1))
        assert len(server.asked) == 1


def test_signal_that_was_turned_away_is_sent_again():
    """An answer that says it was not taken, and a cancel, are repeated."""
    server = Server(answer({"detail": "busy"}, 429), answer({}, 202))
    call(server, lambda hw: headwater.client.Task(hw, "t1", str).signal("go", 1))
    assert len(server.asked) == 2
    server = Server(b"", answer({}, 202))
    call(server, lambda hw: headwater.client.Task(hw, "t1", str).cancel())
    assert len(server.asked) == 2


def test_broken_stream_goes_on_after_the_last_event():
    """Every event once, whatever breaks in between; it ends with the run."""
    server = Server(
        events(("3", "run", {"status": "started"}), ("", "token", {"text": "a"}), whole=False),
        events(("4", "run", {"status": "completed"})),
    )

    async def body(hw: Client) -> list[object]:
        task = headwater.client.Task(hw, "t1", str)
        return [event["data"] async for event in task.events()]

    told = call(server, body)
    assert told == [{"status": "started"}, {"text": "a"}, {"status": "completed"}]
    assert "last-event-id" not in server.asked[0]
    assert "last-event-id: 3" in server.asked[1]


def test_stream_that_only_breaks_is_given_up():
    """Tries are bounded, and the error names the gateway."""

    async def body(hw: Client) -> None:
        async for _ in headwater.client.Task(hw, "t1", str).events():
            raise AssertionError("nothing was told")

    for broken in (b"", events()):
        with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
            call(Server(broken), body)


def test_result_has_the_type_that_was_asked_for():
    """JSON becomes the type, strict or not."""
    when = {"status": "completed", "outcome": "2026-01-01T00:00:00Z"}
    server = Server(answer({"task_id": "t1", "status": "unknown"}, 202), answer(when))
    found = call(server, lambda hw: hw.run("a", "x", output=datetime.datetime))
    assert found == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_failure_and_refusal_are_told_apart():
    """A run that failed is an `AgentError`; a task that does not fit is refused in the gateway's words."""
    failed = {"run": "a.0.t1", "status": "failed", "error": "ValueError", "detail": "bad luck"}
    with pytest.raises(AgentError, match="bad luck"):
        call(Server(answer(failed)), lambda hw: hw.run("a", "x"))
    refusal = Server(answer({"detail": "text: missing"}, 422))
    with pytest.raises(RefusedError, match="text: missing") as caught:
        call(refusal, lambda hw: hw.run("a", "x"))
    assert (caught.value.status, len(refusal.asked)) == (422, 1)


def test_gateway_that_is_not_there_is_named():
    """The error says where nobody answered."""

    async def main() -> None:
        async with Client("http://127.0.0.1:1") as hw:
            await hw.submit("a", "x")

    with pytest.raises(TransientError, match=r"no gateway answers at http://127\.0\.0\.1:1"):
        asyncio.run(main())


def test_what_waits_for_people_is_decided_as_it_was_looked_at():
    """The digest that was seen goes along; a refusal is in the gateway's words."""
    waiting = {"id": "p1", "digest": "01" * 16, "status": "open"}
    server = Server(
        answer({"approvals": [waiting]}),
        answer({**waiting, "status": "happened"}),
        answer({"title": "Refused", "detail": "it was denied by bob already"}, status=409),
    )

    async def body(url: str) -> None:
        async with Client(url) as hw:
            (found,) = await hw.approvals(run="desk.0.t1")
            taken = await hw.decide(found, "happened", reason="seen", by="ana", value={"n": 7})
            assert taken["status"] == "happened"
            with pytest.raises(RefusedError, match="denied by bob already"):
                await hw.decide(found, "approve")

    async def main() -> None:
        async with server.serve() as url:
            await body(url)

    asyncio.run(main())
    listed, decided, refused = server.asked
    assert "GET /api/v1/approvals?status=open&run=desk.0.t1 HTTP/1.1" in listed
    assert "POST /api/v1/approvals/p1/happened?wait_s=10 HTTP/1.1" in decided
    told = json.loads(decided.rpartition("\r\n\r\n")[2])
    assert told == {"digest": "01" * 16, "reason": "seen", "by": "ana", "value": {"n": 7}}
    assert json.loads(refused.rpartition("\r\n\r\n")[2]) == {"digest": "01" * 16, "reason": ""}
