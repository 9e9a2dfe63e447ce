"""Settings: from the environment, prefix `HEADWATER_`, nesting `__`, secrets from `*_FILE`."""

from __future__ import annotations

import difflib
import json
import os
import pathlib
import re
import socket
import urllib.parse
from collections.abc import Mapping
from typing import Any, Literal

import pydantic
import pydantic_settings

from headwater.contracts.headers import valid_tenant
from headwater.errors import SettingsError

PREFIX = "HEADWATER_"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_GROUPS = frozenset(
    {"http", "kafka", "registry", "prices", "tenants", "loops", "store", "supervisor", "blobs"}
)
_TABLES = frozenset({("kafka", "extra"), ("loops", "calls_weights")})
"""Settings that are a JSON object."""
_OF_COMMANDS = ("TOKEN", "TOKEN_FILE")
"""What commands read, and processes do not."""
_TABLES_LIKE = '{"name": "value"}'
_UNKNOWN = "there is no such setting"
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,100}")
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SECRET = re.compile(r"password|secret|\.key|\.pem|jaas|oauthbearer\.config")


class Http(pydantic.BaseModel):
    """Where a process serves HTTP."""

    model_config = pydantic.ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: int | None = pydantic.Field(None, ge=0, le=65_535)
    tokens_file: pathlib.Path | None = None
    body_bytes_max: int = pydantic.Field(512 * 1024, ge=1)
    streams_max: int = pydantic.Field(1_000, ge=1)


class Kafka(pydantic.BaseModel):
    """How to reach the cluster, and the bounds of talking to it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: pydantic.SecretStr = pydantic.SecretStr("")
    ssl_ca_location: str = ""
    extra: dict[str, str] = pydantic.Field(default_factory=dict)
    session_ms: int = pydantic.Field(10_000, ge=1_000)
    heartbeat_ms: int = pydantic.Field(2_000, ge=100)
    transaction_ms: int = pydantic.Field(5_000, ge=1_000)
    sweep_ms: int = pydantic.Field(1_000, ge=0)
    group_protocol: Literal["classic", "consumer"] = "classic"
    partitions: int = pydantic.Field(6, ge=1)
    replication: int = pydantic.Field(0, ge=0)

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Kafka:
        needed = self.transaction_ms + self.sweep_ms + self.heartbeat_ms + 1_000
        if self.session_ms < needed:
            raise ValueError(
                f"{PREFIX}KAFKA__SESSION_MS must be at least TRANSACTION_MS + SWEEP_MS + HEARTBEAT_MS "
                f"+ 1000 = {needed}, so that a dead owner's transaction has ended before its "
                "partitions move"
            )
        if self.sasl_mechanism and not self.security_protocol.startswith("SASL"):
            raise ValueError(
                f"{PREFIX}KAFKA__SASL_MECHANISM is set, but {PREFIX}KAFKA__SECURITY_PROTOCOL is "
                f"{self.security_protocol}: name SASL_SSL or SASL_PLAINTEXT"
            )
        return self

    def properties(self) -> dict[str, str]:
        """Return what the client is told beside the bootstrap."""
        named = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value(),
            "ssl.ca.location": self.ssl_ca_location,
        }
        return {name: value for name, value in named.items() if value} | self.extra


class Registry(pydantic.BaseModel):
    """The schema registry, if there is one."""

    model_config = pydantic.ConfigDict(extra="forbid")

    url: str = ""
    username: str = ""
    password: pydantic.SecretStr = pydantic.SecretStr("")
    ca_file: pathlib.Path | None = None
    auto_register: bool = False

    @pydantic.field_validator("auto_register")
    @classmethod
    def _by_hand(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "no process registers schemas: `headwater schemas register` does; leave this false"
            )
        return value


class PricesFile(pydantic.BaseModel):
    """Prices of models."""

    model_config = pydantic.ConfigDict(extra="forbid")

    file: pathlib.Path | None = None


class TenantsFile(pydantic.BaseModel):
    """What single tenants may have of the fleet."""

    model_config = pydantic.ConfigDict(extra="forbid")

    file: pathlib.Path | None = None


class Loops(pydantic.BaseModel):
    """Bounds of the loops."""

    model_config = pydantic.ConfigDict(extra="forbid")

    batch_records_max: int = pydantic.Field(5_000, ge=1)
    batch_ms_max: int = pydantic.Field(20, ge=1)
    slow_turn_ms: int = pydantic.Field(500, ge=1)
    patience_ms: int = pydantic.Field(10, ge=0, le=1_000)
    executions_max: int = pydantic.Field(10_000, ge=1)
    calls_max: int = pydantic.Field(1_000, ge=1)
    calls_tenant_max: int = pydantic.Field(1_000, ge=1)
    calls_name_max: int = pydantic.Field(1_000, ge=1)
    threads_max: int = pydantic.Field(64, ge=1)
    retry_s_max: float = pydantic.Field(300.0, ge=0)
    drain_s: float = pydantic.Field(25.0, ge=0)
    calls_weights: dict[str, pydantic.PositiveInt] = pydantic.Field(default_factory=dict)
    lease_s: float = pydantic.Field(10.0, ge=3, le=300)
    runs_open_max: int = pydantic.Field(10_000, ge=1)
    failed_days_max: float = pydantic.Field(30.0, gt=0, le=3_650)
    version_gone_s: float = pydantic.Field(300.0, ge=1)


class StorePath(pydantic.BaseModel):
    """Rows kept beside the process, so that a restart reads only the tail of its state topics."""

    model_config = pydantic.ConfigDict(extra="forbid")

    path: pathlib.Path | None = None
    bytes_max: int = pydantic.Field(10 * 1024**3, ge=1)
    follow_s: float = pydantic.Field(60.0, ge=1)
    age_s_max: float = pydantic.Field(43_200.0, ge=0)


class Supervision(pydantic.BaseModel):
    """When the process that runs users' code is ended, and how it is started again."""

    model_config = pydantic.ConfigDict(extra="forbid")

    enabled: bool = True
    path: pathlib.Path | None = None
    turn_s: float = pydantic.Field(30.0, gt=0)
    stall_s: float = pydantic.Field(30.0, gt=0)
    stuck_s: float = pydantic.Field(60.0, gt=0)
    memory_bytes: int | None = pydantic.Field(None, ge=1024**2)
    deaths_max: int = pydantic.Field(3, ge=1, le=100)
    cells_max: int = pydantic.Field(4, ge=1, le=64)
    starts_max: int = pydantic.Field(5, ge=1)
    backoff_s_max: float = pydantic.Field(10.0, ge=0)


class BlobStore(pydantic.BaseModel):
    """Where large values and the parts of long conversations go; nowhere without a URL."""

    model_config = pydantic.ConfigDict(extra="forbid")

    url: str = ""
    inline_bytes_max: int = pydantic.Field(128 * 1024, ge=1_024, le=512 * 1024)
    bytes_max: int = pydantic.Field(16 * 1024**2, ge=4 * 1024**2, le=64 * 1024**2)
    cache_bytes_max: int = pydantic.Field(64 * 1024**2, ge=0)
    held_bytes_max: int = pydantic.Field(256 * 1024**2, ge=64 * 1024**2)
    threads_max: int = pydantic.Field(16, ge=1)
    timeout_s: float = pydantic.Field(10.0, gt=0, le=60)
    keep_s: float = pydantic.Field(31 * 86_400.0, ge=86_400)


class Settings(pydantic_settings.BaseSettings):
    """Everything that can be set; the environment is read here and in the command line alone.

    Example:
        >>> Settings.of({"HEADWATER_KAFKA__BOOTSTRAP": "kafka:9092"}).kafka.bootstrap
        'kafka:9092'
    """

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore"
    )

    app: str = ""
    instance: str = pydantic.Field(default_factory=socket.gethostname)
    namespace: str = ""
    tenant: str = "default"
    url: str = "http://127.0.0.1:8080"
    http: Http = pydantic.Field(default_factory=Http)
    kafka: Kafka = pydantic.Field(default_factory=Kafka)
    registry: Registry = pydantic.Field(default_factory=Registry)
    prices: PricesFile = pydantic.Field(default_factory=PricesFile)
    tenants: TenantsFile = pydantic.Field(default_factory=TenantsFile)
    loops: Loops = pydantic.Field(default_factory=Loops)
    store: StorePath = pydantic.Field(default_factory=StorePath)
    supervisor: Supervision = pydantic.Field(default_factory=Supervision)
    blobs: BlobStore = pydantic.Field(default_factory=BlobStore)

    @pydantic.field_validator("instance")
    @classmethod
    def _named(cls, value: str) -> str:
        if not _INSTANCE.fullmatch(value):
            raise ValueError("1 to 100 of A-Z a-z 0-9 . _ -")
        return value

    @pydantic.field_validator("namespace")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and not _NAMESPACE.fullmatch(value):
            raise ValueError("a-z, then up to 63 of a-z 0-9 _ -, because topics begin with it")
        return value

    @pydantic.field_validator("tenant")
    @classmethod
    def _tenant(cls, value: str) -> str:
        if not valid_tenant(value):
            raise ValueError("1 to 64 of a-z 0-9 . _ -")
        return value

    @pydantic.field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _address(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[pydantic_settings.BaseSettings],
        init_settings: pydantic_settings.PydanticBaseSettingsSource,
        env_settings: pydantic_settings.PydanticBaseSettingsSource,
        dotenv_settings: pydantic_settings.PydanticBaseSettingsSource,
        file_secret_settings: pydantic_settings.PydanticBaseSettingsSource,
    ) -> tuple[pydantic_settings.PydanticBaseSettingsSource, ...]:
        """Take only what `of` read: it replaces `*_FILE`, and names the variable that cannot work."""
        return (init_settings,)

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environment: Instead of the process's own.

        Raises:
            SettingsError: One cannot work; the message names the variable.
        """
        given = dict(os.environ if environment is None else environment)
        values = _secrets(given)
        refuse_unknown(given)
        try:
            return cls(**_nested(values))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = PREFIX + "__".join(str(part).upper() for part in first["loc"][:2])
            said = first["msg"].removeprefix("Value error, ")
            if len(first["loc"]) > 2:  # noqa: PLR2004 - group, setting, and what is named in its table
                said = f"{'.'.join(str(part) for part in first['loc'][2:])}: {said}"
            if first["type"] == "extra_forbidden":
                said = _unknown(name)
            raise SettingsError(said if said.startswith(PREFIX) else f"{name}: {said}") from error

    def describe(self) -> list[tuple[str, str, str]]:
        """Return (variable, value, `default` or `set`) for each setting; secrets hidden."""
        plain = self.model_dump(mode="json")
        default = Settings.model_construct().model_dump(mode="json")
        return [*_flat("", plain, default)]


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Replace `X_FILE` by the file's content as `X`, for the settings that are secrets."""
    found = dict(environment)
    for name, value in environment.items():
        plain = name.removesuffix("_FILE")
        if not (name.startswith(PREFIX) and plain != name and _is_secret(plain)):
            continue
        if plain in environment:
            raise SettingsError(f"{name}: {plain} is set too; set one of them")
        try:
            found[plain] = pathlib.Path(value).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}: {error}") from error
        del found[name]
    return found


def _address(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError(f"{url!r} is no http:// or https:// address")
    return url


def _is_secret(name: str) -> bool:
    return name.endswith(("PASSWORD", "USERNAME", "KAFKA__EXTRA"))


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Refuse names that no setting has, for whoever reads a few of them alone.

    Raises:
        SettingsError: One begins with `HEADWATER_`; the message names the nearest.
    """
    known = {name.upper() for name in Settings.model_fields if name not in _GROUPS} | {
        *_OF_COMMANDS
    }
    groups = {group.upper() for group in _GROUPS} | {"REDIS", "QDRANT"}
    for name in environment:
        if not name.startswith(PREFIX):
            continue
        rest = name[len(PREFIX) :]
        if rest not in known and rest.split("__")[0] not in groups:
            raise SettingsError(f"{name}: {_unknown(name)}")


def _unknown(name: str) -> str:
    """Say that there is no such setting, and which one is nearest."""
    described = [one.removeprefix(PREFIX) for one, _, _ in Settings.model_construct().describe()]
    near = difflib.get_close_matches(name.removeprefix(PREFIX), [*described, *_OF_COMMANDS], n=1)
    hint = f": did you mean {PREFIX}{near[0]}?" if near else ";"
    return f"{_UNKNOWN}{hint} `headwater doctor --all` lists them"


def _nested(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX):
            continue
        group, _, field = name[len(PREFIX) :].lower().partition("__")
        if group in {"redis", "qdrant"}:
            continue
        if group in _GROUPS and not field:
            raise SettingsError(f"{name}: this is a group; name a setting in it, {name}__...")
        if field:
            table = (group, field) in _TABLES
            found.setdefault(group, {})[field] = _json(name, value) if table else value
        else:
            found[group] = value
    return found


def _json(name: str, text: str) -> Any:
    try:
        return pydantic.TypeAdapter(dict[str, Any]).validate_json(text)
    except pydantic.ValidationError as error:
        raise SettingsError(
            f"{name}: not a JSON object, such as {_TABLES_LIKE}: {error.errors()[0]['msg']}"
        ) from error


def _flat(prefix: str, plain: Mapping[str, Any], default: Mapping[str, Any]) -> Any:
    for name, value in plain.items():
        full = f"{prefix}{name}".upper()
        was = default.get(name) if isinstance(default, Mapping) else None
        if isinstance(value, dict) and tuple(full.lower().split("__")) not in _TABLES:
            yield from _flat(f"{full}__", value, was or {})
        else:
            shown = json.dumps(_masked(value)) if isinstance(value, dict) else value
            yield (
                PREFIX + full,
                "" if shown is None else str(shown),
                ("default" if value == was else "set"),
            )


def _masked(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return client properties with those hidden that let somebody in."""
    return {name: "**********" if _SECRET.search(name) else value for name, value in extra.items()}
