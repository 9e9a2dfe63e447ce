"""The store of blobs: objects of a bucket or directory, under namespace and tenant, by what they are."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from headwater.core.blobs import is_name, ref_of
from headwater.errors import BlobLostError, SettingsError, TransientError

T = TypeVar("T")

SCHEMES = ("file", "memory", "s3", "s3a", "gs", "az", "abfs", "abfss")
TIMEOUT_S = 10.0
"""How long one request to the store may take, its repeats included."""
_LIVE, _ASIDE = "live", "aside"
_MARK = "mark"
_TENANT = "t-"
"""Before a tenant's name, which may be one or two dots."""
_FANOUT = slice(6, 8)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob as the store lists it.

    Args:
        tenant: Whose it is.
        name: Its name.
        size: Its bytes.
        put_ms: When it was last put, by the store's own clock.
    """

    tenant: str
    name: str
    size: int
    put_ms: int


class Store:
    """Puts, gets, lists and sets aside; every call blocks.

    A blob that is set aside is found by `get` as before. Only what lies aside is ever deleted.

    Args:
        objects: Where objects are.
        namespace: Begins every path.
        where: What to call the store in messages; no secret in it.
    """

    def __init__(self, objects: ObjectStore, *, namespace: str, where: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._marked = False
        self.where = where

    @classmethod
    def at(cls, url: str, *, namespace: str, timeout_s: float = TIMEOUT_S) -> Store:
        """Return the store that a URL names; credentials come from their usual environment names.

        Raises:
            SettingsError: It names none.
        """
        where = _public(url)
        scheme = urllib.parse.urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise SettingsError(
                f"HEADWATER_BLOBS__URL: {where!r} begins with none of {', '.join(SCHEMES)}: write "
                "file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
            )
        try:
            objects = from_url(url, **_options(url, scheme, timeout_s))
        except (BaseError, ValueError, OSError) as error:
            raise SettingsError(f"HEADWATER_BLOBS__URL {where}: {_first_line(error)}") from error
        return cls(objects, namespace=namespace, where=where)

    def put(self, tenant: str, value: bytes) -> None:
        """Keep a value; one that is there already is young again.

        Raises:
            TransientError: The store is away.
        """
        if not self._marked:
            self._mark()
        self._put(_LIVE, tenant, ref_of(value).name, value)

    def get(self, tenant: str, name: str) -> bytes:
        """Return the value of a name.

        Raises:
            TransientError: The store is away: also an empty place where it should be.
            BlobLostError: It has no such value, or another under its name.
        """
        value = self._get(_LIVE, tenant, name)
        if value is None:
            value = self._get(_ASIDE, tenant, name)
        if value is None and not self._is_marked():
            raise TransientError(
                f"{self.where} is not where values of namespace {self._namespace} were put: mount the "
                "directory, or name the right bucket in HEADWATER_BLOBS__URL"
            )
        if value is None:
            raise BlobLostError(name, tenant, f"is not in {self.where}")
        if ref_of(value).name != name:
            raise BlobLostError(name, tenant, f"was changed in {self.where}")
        return value

    def scan(self, tenant: str = "", *, aside: bool = False) -> Iterator[Blob]:
        """Yield the blobs of a tenant, or of all; what else lies there is passed over.

        Raises:
            TransientError: The store is away.
        """
        place = _ASIDE if aside else _LIVE
        prefix = f"{self._namespace}/{place}/"
        if tenant:
            prefix += f"{_TENANT}{tenant}/"
        pages = iter(obstore.list(self._objects, prefix=prefix))
        while (page := self._ask("list", lambda: next(pages, None))) is not None:
            for meta in page:
                parts = meta["path"].rsplit("/", 3)
                if is_name(parts[-1]):
                    whose = parts[1].removeprefix(_TENANT)
                    put_ms = _milliseconds(meta["last_modified"])
                    yield Blob(tenant=whose, name=parts[-1], size=meta["size"], put_ms=put_ms)

    def look(self, tenant: str, name: str, *, aside: bool = False) -> Blob | None:
        """Return a blob as it is now.

        Raises:
            TransientError: The store is away.
        """
        path = self._path(_ASIDE if aside else _LIVE, tenant, name)
        meta = self._ask("head", lambda: obstore.head(self._objects, path))
        if meta is None:
            return None
        put_ms = _milliseconds(meta["last_modified"])
        return Blob(tenant=tenant, name=name, size=meta["size"], put_ms=put_ms)

    def set_aside(self, tenant: str, name: str) -> None:
        """Have a blob's bytes aside too, young; `drop` then takes the blob itself away.

        Should a writer put it again between the two, its bytes are found aside, and brought back.

        Raises:
            TransientError: The store is away.
        """
        value = self._get(_LIVE, tenant, name)
        if value is not None:
            self._put(_ASIDE, tenant, name, value)

    def drop(self, tenant: str, name: str) -> None:
        """Take away a blob that lies aside.

        Raises:
            TransientError: The store is away.
        """
        self._delete(_LIVE, tenant, name)

    def bring_back(self, tenant: str, name: str) -> None:
        """Put what lies aside where it was.

        Raises:
            TransientError: The store is away.
        """
        value = self._get(_ASIDE, tenant, name)
        if value is not None:
            self._put(_LIVE, tenant, name, value)
            self._delete(_ASIDE, tenant, name)

    def delete(self, tenant: str, name: str) -> None:
        """Delete what lies aside.

        Raises:
            TransientError: The store is away.
        """
        self._delete(_ASIDE, tenant, name)

    def now_ms(self) -> int:
        """Return the store's own time: ages are its differences, whatever the clock here says.

        Raises:
            TransientError: The store is away, or may not be written to.
        """
        path = f"{self._namespace}/clock"
        self._ask("put", lambda: obstore.put(self._objects, path, b"what time is it"))
        meta = self._ask("head", lambda: obstore.head(self._objects, path))
        if meta is None:
            raise TransientError(f"{self.where} lost what was just put: look at its health")
        return _milliseconds(meta["last_modified"])

    def probe(self) -> bool:
        """Put, get, list and delete a blob of the tenant `doctor`.

        It leaves no mark: an empty place that is looked at is no store for that.

        Returns:
            Whether a value of the namespace was ever put there.

        Raises:
            TransientError: One of them does not work; the message says which.
        """
        value = b"is the store of blobs in order?"
        name = ref_of(value).name
        self._put(_LIVE, "doctor", name, value)
        if self.get("doctor", name) != value:  # pragma: no cover - get has compared the digest
            raise TransientError(f"{self.where} returned other bytes than were put")
        if not any(blob.name == name for blob in self.scan("doctor")):
            raise TransientError(f"{self.where} does not list what was just put")
        self.set_aside("doctor", name)
        self.drop("doctor", name)
        self.delete("doctor", name)
        return self._is_marked()

    def _mark(self) -> None:
        """Leave a mark beside the first value, by which a store is told from an empty place."""
        path = f"{self._namespace}/{_MARK}"
        self._ask("put", lambda: obstore.put(self._objects, path, b"values of headwater"))
        self._marked = True

    def _is_marked(self) -> bool:
        path = f"{self._namespace}/{_MARK}"
        return self._ask("head", lambda: obstore.head(self._objects, path)) is not None

    def _path(self, place: str, tenant: str, name: str) -> str:
        return f"{self._namespace}/{place}/{_TENANT}{tenant}/{name[_FANOUT]}/{name}"

    def _put(self, place: str, tenant: str, name: str, value: bytes) -> None:
        path = self._path(place, tenant, name)
        self._ask("put", lambda: obstore.put(self._objects, path, value))

    def _get(self, place: str, tenant: str, name: str) -> bytes | None:
        path = self._path(place, tenant, name)
        return self._ask("get", lambda: bytes(obstore.get(self._objects, path).bytes()))

    def _delete(self, place: str, tenant: str, name: str) -> None:
        path = self._path(place, tenant, name)
        self._ask("delete", lambda: obstore.delete(self._objects, path))

    def _ask(self, verb: str, do: Callable[[], T]) -> T | None:
        """Ask the store; `None` if there is no such object.

        Raises:
            TransientError: It did not do it: whatever the reason, an operator may mend it, and
                nothing is given up meanwhile.
        """
        try:
            return do()
        except FileNotFoundError:
            return None
        except (BaseError, OSError, ValueError) as error:
            raise TransientError(
                f"the store of blobs {self.where} does not {verb}: {_first_line(error)}"
            ) from error


def _options(url: str, scheme: str, timeout_s: float) -> dict[str, Any]:
    if scheme == "memory":
        return {}
    if scheme == "file":
        path = pathlib.Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"HEADWATER_BLOBS__URL file://{path} is no directory and cannot be made one: "
                f"{error.strerror}. Mount it, or give this user the right to make it"
            ) from error
        return {"automatic_cleanup": False}
    timeout = datetime.timedelta(seconds=timeout_s)
    return {
        # Only an endpoint that somebody named so is reached without TLS; the clouds' own have it.
        "client_options": {"timeout": timeout, "connect_timeout": timeout / 2, "allow_http": True},
        "retry_config": {"max_retries": 3, "retry_timeout": timeout},
    }


def _public(url: str) -> str:
    """Return a URL without its password and query."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _milliseconds(moment: datetime.datetime) -> int:
    return round(moment.timestamp() * 1000)
