"""The app of the test of process killers: tools and an agent that end their process as they are told."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import re
import signal
import sys
from typing import Any

import headwater

app = headwater.App("killers", namespace="killers")
CALL_S = 3_000
"""Longer than a machine that is slow takes for the deaths of all killers: none is over before its own."""


def segfault() -> None:
    """Read what is nowhere."""
    ctypes.string_at(0)


def exit_at_once() -> None:
    """End without a word."""
    os._exit(3)


def overflow() -> None:
    """Use up the stack of C."""

    class Deep:
        inner: Any

        def __repr__(self) -> str:
            return repr(self.inner)

    sys.setrecursionlimit(10**9)
    deep = Deep()
    deep.inner = deep
    repr(deep)


def memory() -> None:
    """Take memory for ever, at a rate that does not take the machine's; an agent may not sleep."""
    taken = []
    while True:
        taken.append(b"x" * 2_000_000)
        sum(range(50_000))


def catastrophe() -> None:
    """Hold the interpreter in C for ever."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def loop() -> None:
    """Go round in Python for ever."""
    while True:
        pass


def machine() -> None:
    """End the supervisor, its process and its cells at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


KILLERS = {
    killer.__name__: killer
    for killer in (segfault, exit_at_once, overflow, memory, catastrophe, loop, machine)
}


@app.tool(effect="read", service="lab", timeout_s=CALL_S)
def in_thread(name: str) -> str:
    """Be a killer, or not, in a thread."""
    KILLERS.get(name, str)()
    return name


@app.tool(effect="read", service="lab", timeout_s=CALL_S)
async def on_loop(name: str) -> str:
    """Be a killer, or not, on the event loop; a killer has others beside it."""
    await asyncio.sleep(0.05)
    KILLERS.get(name, str)()
    return name


@app.tool(effect="read", service="lab", timeout_s=1)
def hurried(name: str) -> str:
    """Be a killer, or not, in a thread, and not for long; leave a mark that it began."""
    pathlib.Path(os.environ["E2E_MARKS"], "hurried").touch()
    KILLERS.get(name, str)()
    return name


@app.tool(effect="irreversible", service="lab", timeout_s=CALL_S)
def burn(name: str) -> str:
    """Leave a mark that cannot be taken back, then be a killer."""
    with pathlib.Path(os.environ["E2E_MARKS"], "burnt").open("a") as file:
        file.write(f"{name}\n")
    KILLERS.get(name, str)()
    return name


@app.agent
async def subject(ctx: headwater.Context, task: str) -> str:
    """Do what the task says: a killer's name or another word, and where."""
    name, _, where = task.partition(" ")
    if where == "in_thread":
        return await in_thread(name)
    if where == "burn":
        return await burn(name)
    if where == "hurried":
        return await hurried(name)
    if where == "on_loop":
        return await on_loop(name)
    KILLERS.get(name, str)()
    return name
