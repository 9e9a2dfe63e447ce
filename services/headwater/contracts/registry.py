"""A schema registry, over its HTTP interface; `mock://` keeps schemas in memory, for tests."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx

from headwater.errors import PoisonError, SettingsError, TransientError

TIMEOUT_S = 5.0
_JSON = "application/vnd.schemaregistry.v1+json"
_UNAUTHORIZED = (401, 403)
_MISSING = 404
_CONFLICT = 409
_INVALID = 422


class Registry(Protocol):
    """Schemas by id, and by subject and version."""

    def by_id(self, schema_id: int) -> str:
        """Return a schema's text.

        Raises:
            PoisonError: It has no such schema, or one that is no Avro (`unknown-schema`).
            TransientError: It is away.
        """
        ...

    def latest(self, subject: str) -> str | None:
        """Return the newest schema of a subject, or `None`."""
        ...

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema under a subject; return its id, the same if it is there already.

        Raises:
            SettingsError: It breaks the subject's rules.
            TransientError: It is away.
        """
        ...

    def __enter__(self) -> Self:
        """Use it for a while."""
        ...

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        ...


def connect(
    url: str, *, username: str = "", password: str = "", ca_file: pathlib.Path | None = None
) -> Registry:
    """Return the registry at a URL.

    Args:
        url: `http://`, `https://`, or `mock://` for one in memory; `mock://name` is the same one
            wherever this process asks for that name.
        username: For basic authentication; empty for none.
        password: For basic authentication.
        ca_file: Certificates to trust instead of the system's.
    """
    if url.startswith("mock://"):
        name = url.removeprefix("mock://")
        return _mocks.setdefault(name, MemoryRegistry()) if name else MemoryRegistry()
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"HEADWATER_REGISTRY__URL {url!r}: use http://, https:// or mock://")
    return HttpRegistry(
        httpx.Client(
            base_url=url.rstrip("/") + "/",
            auth=(username, password) if username else None,
            verify=str(ca_file) if ca_file else True,
            timeout=TIMEOUT_S,
            headers={"accept": _JSON},
        )
    )


class HttpRegistry:
    """A registry that speaks Confluent's interface: Confluent's, Karapace, Apicurio, Redpanda.

    Args:
        client: Its base URL ends with the interface's root.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def by_id(self, schema_id: int) -> str:
        """Return a schema's text; see `Registry`."""
        answer = self._ask("GET", f"schemas/ids/{schema_id}")
        if answer is None:
            raise PoisonError("unknown-schema", f"the registry has no schema {schema_id}")
        if answer.get("schemaType", "AVRO") != "AVRO" or answer.get("references"):
            kind = answer.get("schemaType", "AVRO")
            raise PoisonError("unknown-schema", f"schema {schema_id} is {kind} or has references")
        return str(answer["schema"])

    def latest(self, subject: str) -> str | None:
        """Return the newest schema of a subject, or `None`."""
        answer = self._ask("GET", f"subjects/{quote(subject, safe='')}/versions/latest")
        return None if answer is None else str(answer["schema"])

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema under a subject; see `Registry`."""
        path = f"subjects/{quote(subject, safe='')}/versions"
        answer = self._ask("POST", path, {"schema": json.dumps(schema)})
        if answer is None:
            raise SettingsError(
                f"{self._client.base_url}{path} is not there: is that a schema registry?"
            )
        return int(answer["id"])

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    def _where(self) -> str:
        """Name it for people: where it is, without a password that its address may hold."""
        url = self._client.base_url.copy_with(username=None, password=None)
        return f"the schema registry at {str(url).rstrip('/')} (HEADWATER_REGISTRY__URL)"

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return what it answers; `None` where it has no such thing."""
        try:
            answer = self._client.request(
                method, path, json=body, headers={"content-type": _JSON} if body else None
            )
        except httpx.TransportError as error:
            raise TransientError(f"{self._where()} is away: {error}") from error
        if answer.status_code == _MISSING:
            return None
        if answer.status_code in _UNAUTHORIZED:
            raise SettingsError(
                f"{self._where()} refuses us ({answer.status_code}): see HEADWATER_REGISTRY__USERNAME"
            )
        if answer.status_code in (_CONFLICT, _INVALID):
            raise SettingsError(f"{self._where()} refuses {path}: {_words(answer)}")
        if answer.is_error:
            raise TransientError(f"{self._where()} answers {answer.status_code}: {_words(answer)}")
        try:
            found = answer.json()
        except ValueError as error:
            raise TransientError(f"{self._where()} answered no JSON") from error
        return found if isinstance(found, dict) else {}


class MemoryRegistry:
    """A registry in memory; closing it forgets nothing, for others of its name use it."""

    def __init__(self) -> None:
        self._by_id: dict[int, str] = {}
        self._subjects: dict[str, list[int]] = {}

    def by_id(self, schema_id: int) -> str:
        """Return a schema's text; see `Registry`."""
        if schema_id not in self._by_id:
            raise PoisonError("unknown-schema", f"the registry has no schema {schema_id}")
        return self._by_id[schema_id]

    def latest(self, subject: str) -> str | None:
        """Return the newest schema of a subject, or `None`."""
        ids = self._subjects.get(subject)
        return self._by_id[ids[-1]] if ids else None

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema under a subject; see `Registry`."""
        text = json.dumps(schema, sort_keys=True)
        known = {of: number for number, of in self._by_id.items()}
        number = known.get(text, len(self._by_id) + 1)
        self._by_id[number] = text
        ids = self._subjects.setdefault(subject, [])
        if number not in ids:
            ids.append(number)
        return number

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


_mocks: dict[str, MemoryRegistry] = {}
"""By name, for as long as the process lives."""


def _words(answer: httpx.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return answer.reason_phrase
    return str(found.get("message", found)) if isinstance(found, dict) else str(found)
