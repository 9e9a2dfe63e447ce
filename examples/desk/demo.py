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

from examples.desk import story
from examples.desk.app import app

from headwater import hosts, namespace
from headwater.contracts.records import Draft
from headwater.durable import confine
from headwater.log.broker import Broker, free_port
from headwater.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]
TREE_OF = 3
"""The letter whose journey is shown: the large transfer."""
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

    async def raw(value: bytes) -> None:
        headers = (("ce_tenantid", b"default"),)
        await log.append(Draft(topic=topic(app.namespace), value=value, headers=headers))

    async with asyncio.TaskGroup() as group:
        group.create_task(host.run(signals=False))
        url = await found
        try:
            await show(url, raw, {})
        finally:
            if host.process is not None:
                host.process.stop()


async def kafka() -> None:
    """Tell the story on a real Kafka, each role a process of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as directory:
        logs = pathlib.Path(directory)
        external = os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", "")
        broker = Broker(logs / "broker", external=external)
        print("starting a Kafka; the first time it is fetched ...", flush=True)
        bootstrap = await asyncio.to_thread(broker.start)
        namespace = Settings.of().namespace or app.namespace
        port = free_port()
        environment = {
            "HEADWATER_APP": "examples.desk.app:app",
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
        }

        async def raw(value: bytes) -> None:
            await asyncio.to_thread(_produce, bootstrap, topic(namespace), value)

        try:
            await command(["topics", "apply", "--yes"], environment, quiet=True)
            with _fleet(environment, port, logs) as running:
                shown = asyncio.create_task(
                    show(f"http://127.0.0.1:{port}", raw, environment), name="story"
                )
                await _until(shown, running)
        finally:
            await asyncio.to_thread(broker.stop)


def topic(namespace: str) -> str:
    """Return the desk's command topic."""
    return f"{namespace}.cmd.desk.v1"


async def show(url: str, raw: story.Raw, environment: Mapping[str, str]) -> None:
    """Tell the story, then ask the command line what is left of it."""
    ids = await story.play(url, raw)
    reach = {**environment, "HEADWATER_URL": url}
    for asked in (["runs", "list"], ["runs", "show", ids[TREE_OF]], ["quarantine", "list"]):
        await command(asked, reach)


async def command(
    arguments: list[str], environment: Mapping[str, str], *, quiet: bool = False
) -> None:
    """Run a `headwater` command.

    Raises:
        SystemExit: It failed; its own words are on the terminal.
    """
    print(f"\n$ headwater {' '.join(arguments)}", flush=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headwater.cli.main",
        *arguments,
        env=_environment(environment),
        cwd=ROOT,
        stdout=subprocess.DEVNULL if quiet else None,
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


def _produce(bootstrap: str, to: str, value: bytes) -> None:
    """Publish as any producer would: with a Kafka client and nothing of headwater."""
    from confluent_kafka import Producer  # noqa: PLC0415 - only where there is a Kafka

    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(to, value=value, headers={"ce_tenantid": b"default"})
    producer.flush(10)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description="A bank's customer desk, offline and without keys."
    )
    parser.add_argument("--log", choices=("local", "kafka"), default="local")
    chosen = parser.parse_args().log
    confine.ensure_hash_seed()
    asyncio.run(kafka() if chosen == "kafka" else local())


if __name__ == "__main__":
    main()
