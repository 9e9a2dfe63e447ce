"""The desk, run: `python -m examples.desk.demo`, in one process, or with `--log kafka` as a fleet of them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from examples.desk import closing, story
from examples.desk.app import app

import headwater
from headwater import hosts, namespace
from headwater.contracts.records import Draft
from headwater.durable import confine
from headwater.log.broker import Broker, free_port
from headwater.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]
STOP_S_MAX = 20.0
LOOK_S = 0.5
_TAIL = 15
Roles = dict[str, subprocess.Popen[bytes]]


async def local() -> None:
    """Tell the story in this process, on a log in memory."""
    log = await namespace.local(app)
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = Settings.of({"HEADWATER_HTTP__PORT": "0"})
    host = hosts.Host(app, log, settings, roles=hosts.ROLES, announce=found.set_result)

    async def produce(value: bytes, headers: Mapping[str, str]) -> None:
        pairs = tuple((name, text.encode()) for name, text in headers.items())
        await log.append(
            Draft(topic=topic(host.platform.names.namespace), value=value, headers=pairs)
        )

    async with asyncio.TaskGroup() as group:
        running = group.create_task(host.run(signals=False))
        url = await found
        try:
            await show(url, produce)
        finally:
            if host.process is not None:
                host.process.stop()
                await running


async def kafka() -> None:
    """Tell the story on a real Kafka, each role a process of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as directory:
        logs = pathlib.Path(directory)
        external = os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", "")
        broker = Broker(logs / "broker", external=external)
        print("starting a Kafka; the first time it is fetched ...", flush=True)
        bootstrap = await asyncio.to_thread(broker.start)
        to = topic(Settings.of().namespace or app.namespace)
        port = free_port()
        environment = {
            "HEADWATER_APP": "examples.desk.app:app",
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
        }

        async def produce(value: bytes, headers: Mapping[str, str]) -> None:
            await asyncio.to_thread(_produce, bootstrap, to, value, headers)

        try:
            await apply(environment)
            with _fleet(environment, port, logs) as running:
                shown = asyncio.create_task(show(f"http://127.0.0.1:{port}", produce), name="story")
                await _until(shown, running)
        finally:
            await asyncio.to_thread(broker.stop)


def topic(namespace: str) -> str:
    """Return the desk's command topic."""
    return f"{namespace}.cmd.desk.v1"


async def show(url: str, produce: story.Produce) -> None:
    """Tell the story, then what is left of it."""
    await closing.close(url, await story.play(url, produce))


async def apply(environment: Mapping[str, str]) -> None:
    """Make the topics.

    Raises:
        SystemExit: That failed; the command's own words are on the terminal.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "headwater.cli.main", "topics", "apply", "--yes"),
        env=_environment(environment),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit(1)


@contextlib.contextmanager
def _fleet(environment: Mapping[str, str], port: int, logs: pathlib.Path) -> Iterator[Roles]:
    """Run each role as a process; if the body fails, say what they said last."""
    running: Roles = {}
    try:
        for role in hosts.ROLES:
            more = {"HEADWATER_INSTANCE": role}
            if role == "gateway":
                more["HEADWATER_HTTP__PORT"] = str(port)
            with (logs / f"{role}.log").open("wb") as words:
                running[role] = subprocess.Popen(  # noqa: S603 - this project's own command
                    [sys.executable, "-m", "headwater.cli.main", "run", "--role", role],
                    env=_environment({**environment, **more}),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                )
            print(f"{role} is process {running[role].pid}", flush=True)
        yield running
    except BaseException:
        for role in running:
            tail = (logs / f"{role}.log").read_text(errors="replace").splitlines()[-_TAIL:]
            print(f"--- {role}", *tail, sep="\n", file=sys.stderr)
        raise
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _until(shown: asyncio.Task[None], running: Roles) -> None:
    """Wait for the story's end, or for a role's, which must not come first.

    Raises:
        SystemExit: A role ended.
    """
    while not (await asyncio.wait({shown}, timeout=LOOK_S))[0]:
        ended = [role for role, process in running.items() if process.poll() is not None]
        if ended:
            shown.cancel()
            raise SystemExit(f"{', '.join(ended)} ended before the story did")
    await shown


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", **more}


def _produce(bootstrap: str, to: str, value: bytes, headers: Mapping[str, str]) -> None:
    """Publish as any producer would, with a Kafka client.

    Raises:
        OtherEndError: Kafka did not take it.
    """
    from confluent_kafka import Producer  # noqa: PLC0415 - only where there is a Kafka

    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(to, value=value, headers=dict(headers))
    if producer.flush(10):
        raise story.OtherEndError(f"Kafka did not take a record for {to} within 10 s")


def main() -> None:
    """Run the demo; exit 0 only if everything ended as it must."""
    parser = argparse.ArgumentParser(
        description="A bank's customer desk, offline and without keys."
    )
    parser.add_argument("--log", choices=("local", "kafka"), default="local")
    chosen = parser.parse_args().log
    confine.ensure_hash_seed()
    wrong: list[BaseException] = []
    try:
        asyncio.run(kafka() if chosen == "kafka" else local())
    except* (story.OtherEndError, headwater.HeadwaterError) as group:
        wrong += _leaves(group)
    for error in wrong:
        print(f"demo: {error}", file=sys.stderr)
    if wrong:
        raise SystemExit(1)


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


if __name__ == "__main__":
    main()
