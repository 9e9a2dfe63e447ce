"""`headwater run`: roles on Kafka, as one process of a fleet."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Annotated

import typer

from headwater import hosts, namespace, provisioning
from headwater.cli import discovery, shell
from headwater.durable import confine
from headwater.errors import SettingsError
from headwater.log.kafka import KafkaLog
from headwater.settings import Kafka, Settings
from headwater.tracing import spans

_PAUSE_S_MAX = 5.0


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
    """Run roles on the cluster of HEADWATER_KAFKA__BOOTSTRAP until SIGTERM."""
    confine.ensure_hash_seed()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    roles = _roles(role)
    loaded = discovery.load(app)
    settings = Settings.of()
    services = [
        shell.one_of("tool service", name, loaded.services()) for name in service.split(",") if name
    ]
    _await_cluster(settings.kafka)
    log = KafkaLog(provisioning.config_of(settings.kafka))
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
        announce=lambda url: shell.note(
            f"{settings.instance} runs {', '.join(roles)} of {loaded.name}; HTTP at {url}"
        ),
    )
    provisioning.verify(
        provisioning.connect(settings.kafka),
        host.platform.needs(partitions=settings.kafka.partitions),
        host.platform.groups(),
    )
    namespace.check(host.platform)
    try:
        asyncio.run(host.run())
    finally:
        log.close()


def _roles(text: str) -> list[str]:
    named = [shell.one_of("role", one, [*hosts.ROLES, "all"]) for one in text.split(",") if one]
    if not named:
        raise shell.RefusedError("--role names no role", status=shell.WRONG_USAGE)
    return [one for one in hosts.ROLES if one in named or "all" in named]


def _await_cluster(kafka: Kafka) -> None:
    """Wait until a broker answers; say so once."""
    admin = provisioning.connect(kafka)
    pause_s, said = 0.5, False
    while True:
        try:
            admin.brokers()
        except SettingsError as error:
            if not said:
                shell.note(f"headwater: waiting: {error}")
                said = True
            time.sleep(pause_s)
            pause_s = min(_PAUSE_S_MAX, pause_s * 1.5)
        else:
            return
