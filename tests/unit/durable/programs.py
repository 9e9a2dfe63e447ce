"""Random programs over everything asyncio and anyio that agents may use.

A program is nested lists, so it can travel to another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import anyio
import anyio.to_thread

from headwater.contracts.messages import Failed
from headwater.durable.running import Session, current

Program = list[Any]

_LEAVES: Sequence[Callable[[random.Random], Program]] = (
    lambda dice: ["call", dice.choice("abc")],
    lambda dice: ["call", dice.choice("abc")],
    lambda dice: ["call", dice.choice("abc")],
    lambda dice: ["sleep", dice.choice((0, 1, 5, 5, 20))],
    lambda dice: ["anyio_sleep", dice.choice((0, 1, 5, 20))],
    lambda _: ["draw"],
    lambda dice: ["raise"] if dice.random() < 0.4 else ["call", "d"],
    lambda dice: ["receive", dice.choice(("", "go", "stop")), dice.choice((3, 10))],
    lambda _: ["thread"],
    lambda _: ["emit"],
)
_MANY = (
    "seq", "gather", "gather_all", "wait_first", "wait_all", "wait_exception", "as_completed", "group",
    "queue", "lock", "semaphore", "condition", "barrier", "anyio_group", "stream", "agen", "wait_sets",
)  # fmt: skip
_ONE = ("catch", "shield", "background", "event", "anyio_event", "uncancelled", "tidy")
_TIMED = ("timeout", "wait_for", "move_on", "fail_after")


def make(dice: random.Random, depth: int) -> Program:
    """Return a random program."""
    pick = dice.random()
    if depth == 0 or pick < 0.15:
        return dice.choice(_LEAVES)(dice)
    if pick < 0.65:
        parts = [make(dice, depth - 1) for _ in range(dice.randint(1, 4))]
        return [dice.choice(_MANY), parts]
    if pick < 0.82:
        return [dice.choice(_ONE), make(dice, depth - 1)]
    return [dice.choice(_TIMED), dice.choice((2, 8, 30)), make(dice, depth - 1)]


class Interpreter:
    """One run of a program; the trace tells in which order everything happened."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.trace: list[Any] = []

    async def main(self, session: Session) -> bytes:
        try:
            self.trace.append(await self.run(self.program))
        except ExceptionGroup as group:
            self.trace.append(f"group of {len(group.exceptions)}")
        except Exception as error:  # noqa: BLE001 - a program may raise anything
            self.trace.append(type(error).__name__)
        return json.dumps(self.trace).encode()

    async def run(self, program: Program) -> Any:
        kind, *rest = program
        value = await getattr(self, f"do_{kind}")(*rest)
        self.trace.append([kind, value if isinstance(value, (str, int, list)) else None])
        return value

    def each(self, parts: list[Program]) -> list[Coroutine[Any, Any, Any]]:
        return [self.run(part) for part in parts]

    async def do_call(self, name: str) -> str:
        outcome = await current().ask("tool", name, name.encode())
        if isinstance(outcome, Failed):
            raise LookupError(outcome.detail)  # noqa: TRY004 - it is an answer, not a type
        return str(outcome.value.decode())

    async def do_sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)

    async def do_anyio_sleep(self, ms: int) -> None:
        await anyio.sleep(ms / 1000)

    async def do_draw(self) -> list[Any]:
        session = current()
        return [
            time.time(), time.time_ns(), time.monotonic(), time.perf_counter_ns(), session.now_ms,
            datetime.datetime.now(datetime.UTC).isoformat(), datetime.datetime.now().isoformat(),  # noqa: DTZ005 - what programs do
            str(uuid.uuid4()), str(uuid.uuid1()), str(session.uuid()), secrets.token_hex(4),
            os.urandom(3).hex(), random.random(), random.randint(1, 99), random.gauss(0, 1),
            random.choice("xyz"), random.Random().random(), session.random.random(),
            asyncio.get_running_loop().time(), asyncio.current_task().get_name(),  # type: ignore[union-attr] # a task runs it
        ]  # fmt: skip

    async def do_raise(self) -> None:
        raise ValueError("on purpose")

    async def do_receive(self, name: str, ms: int) -> str:
        try:
            async with asyncio.timeout(ms / 1000):
                return str((await current().receive(name)).name)
        except TimeoutError:
            return "nobody"

    async def do_thread(self) -> list[Any]:
        return [await asyncio.to_thread(random.random), await anyio.to_thread.run_sync(time.time)]

    async def do_emit(self) -> None:
        current().emit("said", json.dumps(len(self.trace)).encode())

    async def do_seq(self, parts: list[Program]) -> None:
        for part in parts:
            await self.run(part)

    async def do_gather(self, parts: list[Program]) -> None:
        await asyncio.gather(*self.each(parts))

    async def do_gather_all(self, parts: list[Program]) -> list[str]:
        found = await asyncio.gather(*self.each(parts), return_exceptions=True)
        return [type(one).__name__ for one in found]

    async def wait(self, parts: list[Program], until: str) -> list[str]:
        tasks = [asyncio.create_task(one) for one in self.each(parts)]
        try:
            done, pending = await asyncio.wait(tasks, return_when=until)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        order = [task.get_name() for task in done]
        for task in pending:
            task.cancel()
            order.append(task.get_name())
        failed = [task for task in done if not task.cancelled() and task.exception() is not None]
        return order + [type(task.exception()).__name__ for task in failed]

    async def do_wait_first(self, parts: list[Program]) -> list[str]:
        return await self.wait(parts, asyncio.FIRST_COMPLETED)

    async def do_wait_all(self, parts: list[Program]) -> list[str]:
        return await self.wait(parts, asyncio.ALL_COMPLETED)

    async def do_wait_exception(self, parts: list[Program]) -> list[str]:
        return await self.wait(parts, asyncio.FIRST_EXCEPTION)

    async def do_wait_sets(self, parts: list[Program]) -> list[Any]:
        """Sets of futures, of gathers and of all tasks, acted on in the sets' order."""
        gathers = {asyncio.gather(one, return_exceptions=True) for one in self.each(parts)}
        asked = {current().ask("tool", name, b"") for name in "xyz"}
        names = [task.get_name() for task in asyncio.all_tasks()]
        for gather in gathers:
            gather.add_done_callback(lambda _: self.trace.append("gathered"))
        done, rest = await asyncio.wait(gathers | asked, return_when=asyncio.FIRST_COMPLETED)
        for future in rest:
            future.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*gathers, return_exceptions=True)
        return [names, len(done)]

    async def do_as_completed(self, parts: list[Program]) -> list[str]:
        found = []
        for one in asyncio.as_completed(self.each(parts)):
            try:
                found.append(str(await one))
            except Exception as error:  # noqa: BLE001 - a program may raise anything
                found.append(type(error).__name__)
        return found

    async def do_group(self, parts: list[Program]) -> None:
        async with asyncio.TaskGroup() as group:
            for one in self.each(parts):
                group.create_task(one)

    async def do_anyio_group(self, parts: list[Program]) -> None:
        async with anyio.create_task_group() as group:
            for part in parts:
                group.start_soon(self.run, part)

    async def do_queue(self, parts: list[Program]) -> list[str]:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)

        async def produce(part: Program) -> None:
            await queue.put(await self.run(["catch", part]))

        found = []
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(produce(part))
            for _ in parts:
                found.append(str(await queue.get()))  # noqa: PERF401 - one after the other
        return found

    async def do_stream(self, parts: list[Program]) -> list[str]:
        send, receive = anyio.create_memory_object_stream[Any](1)

        async def produce(part: Program) -> None:
            await send.send(await self.run(["catch", part]))

        found = []
        async with send, receive, anyio.create_task_group() as group:
            for part in parts:
                group.start_soon(produce, part)
            for _ in parts:
                found.append(str(await receive.receive()))  # noqa: PERF401 - one after the other
        return found

    async def guarded(self, guard: Any, parts: list[Program]) -> None:
        async def one(part: Program) -> None:
            async with guard:
                await self.run(part)

        await asyncio.gather(*(one(part) for part in parts))

    async def do_lock(self, parts: list[Program]) -> None:
        await self.guarded(asyncio.Lock(), parts)

    async def do_semaphore(self, parts: list[Program]) -> None:
        await self.guarded(asyncio.Semaphore(2), parts)

    async def do_condition(self, parts: list[Program]) -> None:
        condition = asyncio.Condition()
        turns = 0

        async def one(place: int, part: Program) -> None:
            nonlocal turns
            async with condition:
                await condition.wait_for(lambda: turns == place)
                try:
                    await self.run(part)
                finally:
                    turns += 1
                    condition.notify_all()

        await asyncio.gather(*(one(*pair) for pair in enumerate(parts)), return_exceptions=True)

    async def do_barrier(self, parts: list[Program]) -> None:
        barrier = asyncio.Barrier(len(parts))

        async def one(part: Program) -> None:
            try:
                await self.run(["catch", part])
            finally:
                await barrier.wait()

        await asyncio.gather(*(one(part) for part in parts))

    async def do_agen(self, parts: list[Program]) -> list[str]:
        async def values() -> AsyncIterator[str]:
            try:
                for part in parts:
                    yield str(await self.run(part))
            finally:
                self.trace.append("closed")
                current().emit("closed", b"")

        found = []
        async for one in values():
            found.append(one)
            if len(found) == 2:
                break
        return found

    async def do_catch(self, part: Program) -> str:
        try:
            return str(await self.run(part))
        except Exception as error:  # noqa: BLE001 - a program may raise anything
            return type(error).__name__

    async def do_tidy(self, part: Program) -> None:
        try:
            await self.run(part)
        finally:
            await current().ask("tool", "tidy", b"")

    async def do_shield(self, part: Program) -> None:
        await asyncio.shield(self.run(part))

    async def do_uncancelled(self, part: Program) -> None:
        try:
            await self.run(part)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            raise

    async def do_background(self, part: Program) -> None:
        asyncio.create_task(self.run(part))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)

    async def signalled(self, event: asyncio.Event | anyio.Event, part: Program) -> None:
        async def one(name: str) -> None:
            await event.wait()
            self.trace.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(one, "first")
            group.start_soon(one, "second")
            await self.run(["catch", part])
            event.set()

    async def do_event(self, part: Program) -> None:
        await self.signalled(asyncio.Event(), part)

    async def do_anyio_event(self, part: Program) -> None:
        await self.signalled(anyio.Event(), part)

    async def do_timeout(self, ms: int, part: Program) -> None:
        async with asyncio.timeout(ms / 1000):
            await self.run(part)

    async def do_wait_for(self, ms: int, part: Program) -> None:
        await asyncio.wait_for(self.run(part), ms / 1000)

    async def do_move_on(self, ms: int, part: Program) -> bool:
        with anyio.move_on_after(ms / 1000) as scope:
            await self.run(part)
        return scope.cancelled_caught

    async def do_fail_after(self, ms: int, part: Program) -> None:
        with anyio.fail_after(ms / 1000):
            await self.run(part)
