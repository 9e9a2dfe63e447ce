"""A provider over HTTP that takes its time and records every request and every answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

HELD_S_MAX = 3_000.0


class Provider:
    """Serves on a free port of loopback, in a thread of its own.

    Of the first requests of a kind, some are answered after a while, some when told that answers may
    arrive, and some not before their client is dead; all others are answered after a while.

    Args:
        takes_s: How long a request takes.
        prompt: How many of the first of each kind are answered after a while.
        near: How many after those wait to be told.
        first: How many of each kind are the first.
    """

    def __init__(self, takes_s: float, *, prompt: int, near: int, first: int) -> None:
        self.asked: list[tuple[str, int]] = []
        """What was asked, and when, in milliseconds."""
        self.answered: list[str] = []
        self.arrive = threading.Event()
        """Lets answers arrive that wait to be told."""
        self.dead = threading.Event()
        """Says that whoever waits for the others is dead."""
        self._takes_s = takes_s
        self._prompt, self._near, self._first = prompt, prompt + near, first
        self._kinds: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._threads = concurrent.futures.ThreadPoolExecutor(first * 2 + 1, "held")
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/pay", self._pay, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error", lifespan="off"
        )
        listener = config.bind_socket()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self.arrive.set()
        self.dead.set()
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._listener.close()
        self._threads.shutdown(wait=False)

    def wait(self, condition: Callable[[], bool], bound_s: float) -> None:
        """Wait until something was asked or answered that makes it true."""
        with self._changed:
            assert self._changed.wait_for(condition, bound_s), (
                f"after {bound_s:g} s {len(self.asked)} were asked and {len(self.answered)} answered"
            )

    def times(self) -> Counter[str]:
        """Return how often each thing was asked."""
        return Counter(what for what, _ in self.asked)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        await self._take("ask", prompt)
        return JSONResponse(
            {
                "id": f"c-{prompt}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": "slow",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": f"answer to {prompt}"},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
            }
        )

    async def _pay(self, request: Request) -> Response:
        body = await request.json()
        await self._take("pay", body["account"])
        return PlainTextResponse(f"paid {body['account']}")

    async def _take(self, kind: str, what: str) -> None:
        with self._changed:
            number = self._kinds[kind]
            self._kinds[kind] += 1
            self.asked.append((what, time.time_ns() // 1_000_000))
            self._changed.notify_all()
        if self._prompt <= number < self._first:
            gate = self.arrive if number < self._near else self.dead
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, gate.wait, HELD_S_MAX)
        else:
            await asyncio.sleep(self._takes_s)
        with self._changed:
            self.answered.append(what)
            self._changed.notify_all()
