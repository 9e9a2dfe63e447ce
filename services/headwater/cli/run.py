"""`headwater run`: roles on Kafka, as one process of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from typing import Annotated

import typer

from headwater import cells, fleet, hosts, namespace, provisioning, serving, supervisor
from headwater.assembly import Platform
from headwater.children import Part
from headwater.cli import discovery, shell
from headwater.durable import confine
from headwater.errors import HeadwaterError, SettingsError, TransientError
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.runtime.lines import Line
from headwater.sdk.app import App
from headwater.settings import Settings
from headwater.tracing import spans
from headwater.watching import Limits

SUPERVISED = frozenset({"agents", "models", "tools"})
"""Roles that run users' code."""
POSTS_MAX = 4_096
"""Calls and turns that a supervisor can see at once."""
_PAUSE_S_MAX = 5.0
_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run(
    role: Annotated[
        str,
        typer.Option(
            "--role", help="One or more, comma separated: " + " ".join(hosts.ROLES) + " all"
        ),
    ],
    app: shell.AppOption = "",
    service: Annotated[
        str, typer.Option("--service", help="Only these tool services, comma separated.")
    ] = "",
    index: Annotated[
        str, typer.Option("--index", help="File of the gateway's run index; in memory by default.")
    ] = ":memory:",
    leave: Annotated[
        bool, typer.Option("--leave", help="Scale down: give partitions up at once at the end.")
    ] = False,
) -> None:
    """Run roles on the cluster until SIGTERM. HEADWATER_KAFKA__BOOTSTRAP names it."""
    confine.ensure_hash_seed()
    logging.basicConfig(level=logging.INFO, format=_LINE)
    for client in ("httpx", "httpx2"):  # they would say a line for each call of a model
        logging.getLogger(client).setLevel(logging.WARNING)
    roles = _roles(role)
    settings = Settings.of()
    listener = serving.bind(settings, roles)
    part = _supervised(settings, roles)
    if isinstance(part, int):
        raise typer.Exit(part)
    loaded = discovery.load(app)
    services = _services(service, loaded)
    cluster = provisioning.connect(settings.kafka)
    _await_cluster(cluster.brokers)
    log = KafkaLog(provisioning.config_of(settings.kafka, version=fleet.tag(loaded.version)))
    tracing = spans.connect(
        os.environ, role="-".join(roles), version=loaded.version, instance=settings.instance
    )
    host = hosts.Host(
        loaded,
        log,
        settings,
        roles=roles,
        services=services,
        index_path=index,
        leave=leave,
        tracing=tracing,
        share=spans.share(os.environ),
        announce=functools.partial(_announce, settings.instance, roles, loaded),
        listener=listener,
        part=part,
        members=lambda: cluster.client_ids(host.platform.layout.agent_groups()),
    )
    if part is not None and part.work is not None:
        asyncio.run(_cell(host, settings, part, roles, services or loaded.services()))
        log.close()
        return
    _await_cluster(lambda: _check(cluster, host, settings, roles))
    try:
        asyncio.run(_serve(host, part))
    finally:
        log.close()


async def _cell(
    host: hosts.Host,
    settings: Settings,
    part: Part,
    roles: list[str],
    services: list[str],
) -> None:
    """Try suspects, for the process that asked for it."""
    assert part.work is not None, "a cell has a line"
    line = await Line.over(part.work)
    await cells.serve(host.platform, settings, part.posts, line, roles=roles, services=services)
    part.posts.end(0)


async def _serve(host: hosts.Host, part: Part | None) -> None:
    """Run the host; tell the supervisor how it ended, if that was in good order.

    It is told before the event loop is closed, because that waits for threads which may never end.
    """
    status = 1
    try:
        await host.run()
        status = 0
    except HeadwaterError as error:
        logging.getLogger(__name__).debug("the host ended: %s", error)
        raise
    except BaseException:
        part = None  # a death, if users' code was at work
        raise
    finally:
        if part is not None:
            part.posts.end(status)


def _supervised(settings: Settings, roles: list[str]) -> Part | int | None:
    """Become a supervisor and the process that it keeps, where users' code runs."""
    given = settings.supervisor
    if not given.enabled or not SUPERVISED.intersection(roles):
        return None
    loops = settings.loops
    plan = supervisor.Plan(
        name=settings.instance,
        posts=POSTS_MAX,
        limits=Limits(
            turn_s=given.turn_s,
            stall_s=given.stall_s,
            stuck_s=given.stuck_s,
            memory_bytes=given.memory_bytes,
        ),
        drain_s=loops.drain_s,
        path=given.path,
        starts_max=given.starts_max,
        backoff_s_max=given.backoff_s_max,
    )
    part = supervisor.Supervisor(plan).run()
    if isinstance(part, Part) and part.work is not None:
        settings.store.path = None  # it is the process's own, and locked
    return part


def _roles(text: str) -> list[str]:
    named = [shell.one_of("role", one, [*hosts.ROLES, "all"]) for one in text.split(",") if one]
    if not named:
        raise shell.RefusedError("--role names no role", status=shell.WRONG_USAGE)
    return [one for one in hosts.ROLES if one in named or "all" in named]


def _services(text: str, app: App) -> list[str]:
    return [shell.one_of("tool service", one, app.services()) for one in text.split(",") if one]


def _announce(instance: str, roles: list[str], app: App, url: str) -> None:
    shell.note(f"{instance} runs {', '.join(roles)} of {app.name}; HTTP at {url}")


def _await_cluster(check: Callable[[], object]) -> None:
    """Wait until the cluster has answered what a check asks; say so once."""
    pause_s, said = 0.5, False
    while True:
        try:
            check()
        except TransientError as error:
            if not said:
                shell.note(f"headwater: waiting: {error}")
                said = True
            time.sleep(pause_s)
            pause_s = min(_PAUSE_S_MAX, pause_s * 1.5)
        else:
            return


def _check(cluster: KafkaAdmin, host: hosts.Host, settings: Settings, roles: list[str]) -> None:
    """Refuse to join a cluster that lacks what the roles need."""
    provisioning.verify(
        cluster,
        host.platform.layout.needs(partitions=settings.kafka.partitions),
        host.platform.layout.groups(),
    )
    namespace.check(host.platform)
    if "agents" in roles:
        asyncio.run(say_version(cluster, host.platform))


async def say_version(cluster: KafkaAdmin, platform: Platform) -> None:
    """Have others know this process's version, and forget what is told of processes that have gone."""
    await namespace.announce(platform)
    told = namespace.told_versions(platform)
    with contextlib.suppress(SettingsError):  # who may not look forgets nothing
        there = fleet.present(cluster.client_ids(platform.layout.agent_groups()), told)
        gone = told.keys() - {one.instance for one in there} - {platform.parts.instance}
        await namespace.forget(platform, gone)
