"""`headwater blobs`: what the store of large values holds, and collecting what nothing refers to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Annotated

import typer

from headwater import provisioning
from headwater.blobs import collecting
from headwater.blobs.collecting import Collected
from headwater.blobs.store import Blob, Store
from headwater.cli import discovery, shell
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look at large values and collect what is unused.")

_AGE = re.compile(r"([0-9]+)([dhms])")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_KIB = 1024
_MISSING_SHOWN = 10

Tenant = Annotated[str, typer.Option("--tenant", help="Only of this tenant.")]


@app.command("list")
def list_(
    app: shell.AppOption = "",
    tenant: Tenant = "",
    aside: Annotated[
        bool, typer.Option("--aside", help="What a collection set aside instead.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """List blobs: tenant, name, size, and when each was last put."""
    store, _ = _store(app)
    found: list[Blob] = []
    with shell.progress(f"listing {store.where}"):
        for blob in store.scan(tenant, aside=aside):
            found.append(blob)
            if len(found) == limit:
                break
    if output is shell.Format.JSON:
        shell.document([dataclasses.asdict(blob) for blob in found])
        return
    if not found:
        shell.note(f"{store.where} holds no such blob")
        return
    now_ms = store.now_ms()
    for (
        blob
    ) in found:  # a name fills most of a line, and people copy it: no table would leave it whole
        age = shell.duration(max(0, now_ms - blob.put_ms))
        print(f"{blob.name}  {_size(blob.size):>9}  {age:>13}  {blob.tenant}")
    if len(found) == limit:
        shell.note(f"these are the first {limit}: --limit shows more")


@app.command()
def stat(
    app: shell.AppOption = "", tenant: Tenant = "", output: shell.Output = shell.Format.TABLE
) -> None:
    """Count blobs and bytes by tenant."""
    store, _ = _store(app)
    counts: dict[tuple[str, bool], list[int]] = {}
    with shell.progress(f"listing {store.where}"):
        for aside in (False, True):
            for blob in store.scan(tenant, aside=aside):
                count = counts.setdefault((blob.tenant, aside), [0, 0])
                count[0] += 1
                count[1] += blob.size
    if output is shell.Format.JSON:
        shell.document(
            [
                {"tenant": of, "aside": aside, "blobs": count, "bytes": size}
                for (of, aside), (count, size) in sorted(counts.items())
            ]
        )
        return
    if not counts:
        shell.note(f"{store.where} holds no such blob")
        return
    rows = [
        (of, "aside" if aside else "live", count, _size(size))
        for (of, aside), (count, size) in sorted(counts.items())
    ]
    shell.table(["tenant", "where", "blobs", "size"], rows, keep=["tenant"])


@app.command()
def collect(
    app: shell.AppOption = "",
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            help="Leave younger blobs alone, for example 40d; at least HEADWATER_BLOBS__KEEP_S.",
        ),
    ] = "",
    dry_run: shell.DryRun = False,
    yes: shell.Yes = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Set aside what no record refers to. Deletes what has lain aside long enough."""
    shell.hush()
    store, settings = _store(app)
    keep_s = _age(older_than, settings.blobs.keep_s)
    namespace = _namespace(app, settings)
    admin = KafkaAdmin(provisioning.config_of(settings.kafka))
    topics = admin.beginning(f"{namespace}.")
    read = {name: topics[name] for name in collecting.topics_with(topics, namespace)}
    if not read:
        raise shell.RefusedError(
            f"no topic of namespace {namespace} is at {settings.kafka.bootstrap}, so nothing says "
            "which blobs are in use: set HEADWATER_NAMESPACE or HEADWATER_KAFKA__BOOTSTRAP"
        )
    if not dry_run:
        age = shell.duration(round(keep_s * 1000))
        shell.confirm(
            f"Blobs of {store.where} that none of {len(read)} topics refers to for {age} are set "
            "aside, and those set aside so long ago are deleted. Go on?",
            yes=yes,
        )
    log = KafkaLog(provisioning.config_of(settings.kafka))

    def marks() -> Iterator[set[str]]:
        return collecting.marks(log, read)

    keep_ms, done = round(keep_s * 1000), Collected()
    try:
        with shell.progress(f"collecting {store.where}") as say:
            for step in collecting.collect(store, marks, keep_ms=keep_ms, dry_run=dry_run):
                say(f"{step.doing}: {step.set_aside} of {step.blobs} to set aside")
                done = step
    finally:
        log.close()
    _tell(done, dry_run=dry_run, output=output)


def _tell(done: Collected, *, dry_run: bool, output: shell.Format) -> None:
    if output is shell.Format.JSON:
        shell.document({**dataclasses.asdict(done), "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    rows = [
        ("looked at", done.blobs, _size(done.bytes)),
        ("in use", done.referenced, ""),
        ("too young to tell", done.young, ""),
        (f"{would}set aside", done.set_aside, ""),
        (f"{would}brought back", done.brought_back, ""),
        (f"{would}deleted", done.deleted, _size(done.deleted_bytes)),
    ]
    shell.table(["what", "blobs", "size"], rows, keep=["what"])
    if done.missing:
        shell.note(
            f"{len(done.missing)} blobs that records refer to are not in the store: is its directory "
            "mounted, and is it the right bucket? Else put them back, see the runbook on lost blobs"
        )
        for name in done.missing[:_MISSING_SHOWN]:  # a line each: people look them up in backups
            shell.note(f"  {name}")
        if (more := len(done.missing) - _MISSING_SHOWN) > 0:
            shell.note(f"  and {more} more; --output json names all")


def _store(option: str) -> tuple[Store, Settings]:
    settings = Settings.of()
    if not settings.blobs.url:
        raise shell.RefusedError(
            "HEADWATER_BLOBS__URL names no store of blobs: set it to the app's"
        )
    store = Store.at(
        settings.blobs.url,
        namespace=_namespace(option, settings),
        timeout_s=settings.blobs.timeout_s,
    )
    return store, settings


def _namespace(option: str, settings: Settings) -> str:
    return settings.namespace or discovery.load(option).namespace


def _age(text: str, least_s: float) -> float:
    if not text:
        return least_s
    match = _AGE.fullmatch(text)
    if match is None:
        raise shell.RefusedError(
            f"--older-than {text}: write a number and d, h, m or s, for example 40d",
            status=shell.WRONG_USAGE,
        )
    age_s = int(match[1]) * _SECONDS[match[2]]
    if age_s < least_s:
        raise shell.RefusedError(
            f"--older-than {text} is below HEADWATER_BLOBS__KEEP_S={least_s:.0f}: something may still "
            "be on its way that refers to younger blobs",
            status=shell.WRONG_USAGE,
        )
    return float(age_s)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"
