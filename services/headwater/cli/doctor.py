"""`headwater doctor`: whether everything is as the app needs it, and what to do where it is not."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import httpx
import typer

from headwater import backlogs, namespace, provisioning, serving
from headwater.assembly import Platform
from headwater.blobs.store import Store
from headwater.cli import discovery, shell, topics
from headwater.errors import HeadwaterError, SettingsError, TransientError
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.probe import Probe
from headwater.models import providers
from headwater.provisioning import Action
from headwater.sdk.app import App
from headwater.settings import Settings
from headwater.tenancy import tenancy_of
from headwater.tracing import spans

_SWEEP = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
_SWEEP_DEFAULT_MS = 10_000
_DELETE_DEFAULT_MS = 86_400_000
_WANTED = frozenset({"READ", "WRITE", "DESCRIBE"})
_REGISTRY_S = 5.0
_CALL_S = 5.0


class State(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look found: how it went, and what to do if anything."""

    name: str
    state: State
    says: str


def doctor(
    app: shell.AppOption = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the broker the six exactly-once questions as well.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="List settings that have their defaults as well.")
    ] = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Look at all that an app needs; say what to do. Settings, broker, topics, rights, schemas."""
    shell.hush()
    settings = Settings.of()
    shown = output is shell.Format.TABLE
    found: list[Check] = []
    for check in _checks(settings, app, probe=probe):
        found.append(check)
        if shown:
            line = f"{check.state.value:<8}{check.name}: {check.says}"
            print(shell.wrapped(line, sys.stdout, indent=8), flush=True)
    named = [*_settings(settings, app)]
    if shown:
        _list(named, all_=all_)
    else:
        rows = [{"name": name, "value": value, "source": source} for name, value, source in named]
        shell.document({"settings": rows, "checks": [dataclasses.asdict(one) for one in found]})
    failed = [check for check in found if check.state is State.FAIL]
    if failed:
        names = ", ".join(check.name for check in failed)
        raise shell.RefusedError(f"{len(failed)} of {len(found)} checks fail: {names}")


def _settings(settings: Settings, option: str) -> Iterator[tuple[str, str, str]]:
    """Yield (variable, value, source) as they hold here, whoever says so: most are the environment's."""
    elsewhere = {**_defaults(option), **_project(option)}
    for name, value, source in settings.describe():
        told = elsewhere.get(name)
        yield (name, *told) if told and source == "default" else (name, value, source)


def _defaults(option: str) -> dict[str, tuple[str, str]]:
    """Return what holds where nothing is set, of settings whose default is not one value."""
    found = {"HEADWATER_HTTP__PORT": (f"{serving.PORT}; without a gateway a free one", "default")}
    with contextlib.suppress(HeadwaterError):  # a check says why there is no app
        found["HEADWATER_NAMESPACE"] = (discovery.load(option).namespace, "app")
    return found


def _project(option: str) -> dict[str, tuple[str, str]]:
    """Return what a command's option or the project says, as the environment would."""
    with contextlib.suppress(HeadwaterError):
        named, source = discovery.origin(option)
        found = {"HEADWATER_APP": (named, source)} if named else {}
        if tenant := discovery.tenant(""):
            found["HEADWATER_TENANT"] = (tenant, "[tool.headwater] tenant")
        return found
    return {}


def _list(named: list[tuple[str, str, str]], *, all_: bool) -> None:
    """Print the settings that somebody set, or all; secrets are hidden already."""
    rows = [row for row in named if all_ or row[2] != "default"]
    print()
    if rows:
        shell.table(["setting", "value", "source"], rows, keep=["setting"])
    if len(rows) < len(named):
        print(f"{len(named) - len(rows)} settings have their defaults: --all lists them")


def _checks(settings: Settings, option: str, *, probe: bool) -> Iterator[Check]:
    yield _tracing()
    app: App | None = None
    try:
        app = discovery.load(option)
    except shell.RefusedError as error:
        yield Check(name="app", state=State.SKIPPED if probe else State.FAIL, says=str(error))
    else:
        yield Check(name="app", state=State.OK, says=f"{app.name} {app.version}, {_surface(app)}")
        yield from _models(app)
    yield _tenants(settings)
    yield _registry(settings)
    yield _blobs(settings, app)
    config = dataclasses.replace(provisioning.config_of(settings.kafka), call_s=_CALL_S)
    admin = KafkaAdmin(config)
    try:
        brokers = admin.brokers()
    except TransientError as error:
        yield Check(name="broker", state=State.FAIL, says=str(error))
        return
    yield Check(
        name="broker", state=State.OK, says=f"{brokers} at {settings.kafka.bootstrap} answer"
    )
    yield from _timeouts(admin, settings)
    if app is not None:
        yield from _cluster(admin, app, settings, brokers)
    if probe:
        yield from _probe(settings)


def _surface(app: App) -> str:
    return f"{len(app.agents)} agents, {len(app.tools)} tools, {len(app.models)} models"


def _models(app: App) -> Iterator[Check]:
    try:
        providers.check(app.models)
    except SettingsError as error:
        yield Check(name="models", state=State.FAIL, says=str(error))


def _tracing() -> Check:
    try:
        ratio = spans.share(os.environ)
    except SettingsError as error:
        return Check(name="tracing", state=State.FAIL, says=str(error))
    if not spans.wanted(os.environ):
        return Check(
            name="tracing", state=State.OK, says="off; OTEL_EXPORTER_OTLP_ENDPOINT turns it on"
        )
    return Check(name="tracing", state=State.OK, says=f"OTLP over HTTP, {ratio:.0%} of new traces")


def _tenants(settings: Settings) -> Check:
    try:
        found = tenancy_of(settings.tenants.file, settings.loops)
    except SettingsError as error:
        return Check(name="tenants", state=State.FAIL, says=str(error))
    named = {*found.quotas.of, *found.placement.spread, *found.placement.fixed, *found.weights}
    says = f"{found.quotas.default} open runs each; {len(named) or 'none'} with terms of their own"
    return Check(name="tenants", state=State.OK, says=says)


def _registry(settings: Settings) -> Check:
    registry = settings.registry
    if not registry.url:
        says = "none; schemas travel as fingerprints, known from the app and its ctl.schemas topic"
        return Check(name="registry", state=State.OK, says=says)
    auth = (registry.username, registry.password.get_secret_value()) if registry.username else None
    verify = str(registry.ca_file) if registry.ca_file else True
    url = f"{registry.url.rstrip('/')}/subjects"
    try:
        answer = httpx.get(url, auth=auth, timeout=_REGISTRY_S, verify=verify)
        answer.raise_for_status()
    except (httpx.HTTPError, OSError) as error:
        says = f"{registry.url} does not answer ({error}): correct HEADWATER_REGISTRY__URL, or start it"
        return Check(name="registry", state=State.FAIL, says=says)
    return Check(name="registry", state=State.OK, says=f"{registry.url} answers")


def _blobs(settings: Settings, app: App | None) -> Check:
    if not settings.blobs.url:
        says = "none; values over 512 KiB are refused. HEADWATER_BLOBS__URL names a store for them"
        return Check(name="blobs", state=State.OK, says=says)
    namespace = settings.namespace or (app.namespace if app else "hw")
    try:
        store = Store.at(
            settings.blobs.url, namespace=namespace, timeout_s=settings.blobs.timeout_s
        )
        used = store.probe()
    except HeadwaterError as error:
        return Check(name="blobs", state=State.FAIL, says=str(error))
    says = f"{store.where} puts, gets, lists and deletes"
    if not used:
        says += (
            f"; no value of {namespace} is there yet: if there should be, mount the directory or "
            "correct HEADWATER_BLOBS__URL"
        )
    if store.where.startswith("memory:"):
        says = f"{store.where} is of one process and forgets at exit: name a file:// or s3:// store"
        return Check(name="blobs", state=State.WARN, says=says)
    return Check(name="blobs", state=State.OK, says=says)


def _timeouts(admin: KafkaAdmin, settings: Settings) -> Iterator[Check]:
    kafka, broker = settings.kafka, admin.broker_settings()
    if not broker:
        says = "this principal may not see the broker's settings: grant DESCRIBE_CONFIGS on the cluster"
        yield Check(name="timeouts", state=State.WARN, says=says)
        return
    sweep_ms = int(broker.get(_SWEEP) or _SWEEP_DEFAULT_MS)
    needed_ms = kafka.transaction_ms + sweep_ms + kafka.heartbeat_ms + 1_000
    if kafka.session_ms < needed_ms:
        says = (
            f"the broker sweeps dead transactions every {sweep_ms} ms, so a dead owner's may outlive its "
            f"session of {kafka.session_ms} ms: set {_SWEEP}={kafka.sweep_ms} on the broker, or "
            f"HEADWATER_KAFKA__SESSION_MS={needed_ms} and HEADWATER_KAFKA__SWEEP_MS={sweep_ms} here"
        )
        yield Check(name="timeouts", state=State.FAIL, says=says)
    else:
        says = f"a dead owner's transaction ends before its session of {kafka.session_ms} ms"
        yield Check(name="timeouts", state=State.OK, says=says)
    for name, ours, least in (
        ("group.max.session.timeout.ms", kafka.session_ms, False),
        ("group.min.session.timeout.ms", kafka.session_ms, True),
        ("transaction.max.timeout.ms", kafka.transaction_ms, False),
    ):
        bound = int(broker.get(name) or ours)
        if (ours < bound) if least else (ours > bound):
            says = f"the broker allows {name}={bound}, and here it is {ours}: change one of them"
            yield Check(name="timeouts", state=State.FAIL, says=says)


def _cluster(admin: KafkaAdmin, app: App, settings: Settings, brokers: int) -> Iterator[Check]:
    log = KafkaLog(provisioning.config_of(settings.kafka))
    try:
        platform = topics.platform_of(app, log, settings)
        needs = [*platform.layout.needs(partitions=settings.kafka.partitions)]
        lacking = provisioning.plan(admin, needs, platform.layout.groups())
        if lacking:
            does = "`headwater topics apply`"
            if any(change.action is Action.REFUSED for change in lacking):
                does = "`headwater topics plan` says what must be done by hand"
            says = f"{len(lacking)} changes needed, first {lacking[0].name}: {does}"
            yield Check(name="topics", state=State.FAIL, says=says)
        else:
            yield Check(
                name="topics", state=State.OK, says=f"{len(needs)} are as the app needs them"
            )
        there = admin.topics([need.name for need in needs])
        yield _replication(there, brokers)
        yield _rights(admin, sorted(there))
        if not lacking:
            yield _control(platform)
            yield _backlogs(platform, there)
            yield _expired(admin, platform)
        yield from _kept(settings, there)
        yield _offsets(admin.broker_settings(), there)
    finally:
        log.close()


def _backlogs(platform: Platform, there: Mapping[str, provisioning.There]) -> Check:
    """Compare what no group has taken yet with how long it is kept."""
    configs = {name: state.config for name, state in there.items()}
    found = [
        *backlogs.oldest(
            platform.log, platform.layout.groups(), configs, now_ms=platform.parts.clock()
        )
    ]
    worst = max(found, key=lambda one: (one.share, one.age_ms), default=None)
    if worst is None:
        return Check(name="backlog", state=State.OK, says="every group has taken what there is")
    age = shell.duration(worst.age_ms)
    says = f"the oldest record that {worst.group} has not taken, in {worst.place}, is {age} old"
    if worst.retention_ms is None:
        return Check(name="backlog", state=State.OK, says=says)
    kept = shell.duration(worst.retention_ms)
    says += f": {worst.share:.0%} of the {kept} that it is kept"
    if worst.share < backlogs.WARN_SHARE:
        return Check(name="backlog", state=State.OK, says=says)
    state = State.FAIL if worst.share >= backlogs.FAIL_SHARE else State.WARN
    says += f". Start members of {worst.group}, or raise retention.ms of {worst.place.topic} now"
    return Check(name="backlog", state=state, says=says)


def _kept(settings: Settings, there: Mapping[str, provisioning.There]) -> Iterator[Check]:
    """A local store that is older than half of `delete.retention.ms` may hold rows that are gone."""
    if settings.store.path is None:
        return
    states = {name: one.config for name, one in there.items() if ".state." in name}
    gone_ms = {
        name: int(config.get("delete.retention.ms") or _DELETE_DEFAULT_MS)
        for name, config in states.items()
    }
    least = min(gone_ms, key=lambda name: gone_ms[name], default=None)
    if least is None:
        return
    age_s = settings.store.age_s_max
    if age_s * 2_000 > gone_ms[least]:
        says = (
            f"{least} forgets tombstones after {shell.duration(gone_ms[least])}, and a local store is "
            f"used for {shell.duration(round(age_s * 1000))}: set HEADWATER_STORE__AGE_S_MAX to "
            f"{gone_ms[least] // 2_000} at most"
        )
        yield Check(name="local store", state=State.FAIL, says=says)
    else:
        yield Check(
            name="local store",
            state=State.OK,
            says=f"it is thrown away before {least} forgets what was dropped",
        )


def _expired(admin: KafkaAdmin, platform: Platform) -> Check:
    """Look for groups that run, and could not start again where they are."""
    found = provisioning.expired(admin, platform.layout.groups())
    if not found:
        return Check(name="expired", state=State.OK, says="every group can start where it is")
    first = found[0]
    says = (
        f"retention has overtaken {len(found)} offsets, first that of {first.group} in "
        f"{first.topic}[{first.partition}]: who starts there ends. Stop its processes, then "
        "`headwater topics skip-expired`"
    )
    return Check(name="expired", state=State.WARN, says=says)


def _offsets(broker: Mapping[str, str], there: Mapping[str, provisioning.There]) -> Check:
    """A group without members loses its offsets after a while, and then nobody knows where it was."""
    given = broker.get("offsets.retention.minutes")
    if given is None:
        says = "this principal may not see offsets.retention.minutes of the broker"
        return Check(name="offsets", state=State.WARN, says=says)
    offsets_ms = int(given) * 60_000
    kept = [backlogs.retention_ms(state.config) for state in there.values()]
    longest_ms = max((ms for ms in kept if ms is not None), default=0)
    longest_ms = min(longest_ms, backlogs.RETENTION_MS)
    says = f"groups that nobody is a member of keep their offsets for {shell.duration(offsets_ms)}"
    if offsets_ms >= longest_ms:
        return Check(name="offsets", state=State.OK, says=says)
    says += (
        f", and records are kept for {shell.duration(longest_ms)}: set offsets.retention.minutes="
        f"{longest_ms // 60_000} on the broker, or a fleet that stands still for longer cannot start"
    )
    return Check(name="offsets", state=State.WARN, says=says)


def _replication(there: Mapping[str, provisioning.There], brokers: int) -> Check:
    least = min((state.replication for state in there.values()), default=0)
    if not there:
        return Check(name="replication", state=State.SKIPPED, says="there are no topics yet")
    if least >= provisioning.REPLICATION:
        return Check(name="replication", state=State.OK, says=f"{least} replicas at least")
    says = (
        f"{least} replica: what its broker loses is lost; fine for a laptop and not for production"
    )
    if least > 1:
        says = f"{least} replicas: with one broker away, writes that need two stop"
    return Check(name="replication", state=State.WARN, says=f"{says} ({brokers} brokers)")


def _rights(admin: KafkaAdmin, names: list[str]) -> Check:
    if not names:
        return Check(name="rights", state=State.SKIPPED, says="there are no topics yet")
    for name in names:
        missing = _WANTED - admin.allowed(name)
        if missing:
            says = (
                f"this principal may not {', '.join(sorted(missing))} {name}: grant it on the prefix "
                f"{name.split('.')[0]}. for topics, groups and transactional ids"
            )
            return Check(name="rights", state=State.FAIL, says=says)
    return Check(
        name="rights", state=State.OK, says=f"read, write and describe on {len(names)} topics"
    )


def _control(platform: Platform) -> Check:
    try:
        namespace.check(platform)
    except HeadwaterError as error:
        return Check(name="schemas", state=State.FAIL, says=str(error))
    says = f"namespace {platform.names.namespace} runs {platform.app.name}, its schemas are known"
    return Check(name="schemas", state=State.OK, says=says)


def _probe(settings: Settings) -> Iterator[Check]:
    config = provisioning.config_of(settings.kafka)
    copies = settings.kafka.replication or 1
    answers = []
    for answer in Probe(config, namespace=settings.namespace or "hw", replication=copies).run():
        answers.append(answer)
        yield Check(
            name=f"probe {len(answers)}",
            state=State.OK if answer.held else State.FAIL,
            says=f"{answer.name} ({answer.detail}; {answer.seconds:.1f} s)",
        )
    held = sum(answer.held for answer in answers)
    says = f"{held}/{len(answers)} hold"
    if held != len(answers):
        says += ": no exactly-once promise counts on this broker"
    state = State.OK if held == len(answers) else State.FAIL
    yield Check(name="probe", state=state, says=says)
