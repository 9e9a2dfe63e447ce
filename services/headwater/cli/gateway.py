"""Speaking HTTP to a gateway, or to `dev`: the one way commands read runs and send control."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import httpx

from headwater.cli.shell import WRONG_USAGE, RefusedError, user
from headwater.settings import refuse_unknown

URL = "http://127.0.0.1:8080"
_TIMEOUT_S = 30.0
_RETRIES_MAX = 5
_PAUSE_S_MAX = 5.0
_MISSING = 404
_UNAUTHORIZED = 401


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One server-sent event: its id, its type and its data."""

    id: str
    type: str
    data: str


class UnansweredError(RefusedError):
    """Something was sent, and no answer came, or of one who does not know: it may have been done."""


class Gateway:
    """A gateway's HTTP interface.

    Args:
        url: Where it is.
        token: Bearer token; empty for none.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT_S)
        except (httpx.InvalidURL, ValueError) as error:
            raise RefusedError(f"HEADWATER_URL {url!r}: {error}", status=WRONG_USAGE) from error

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the JSON at a path.

        Raises:
            RefusedError: There is no gateway, or it says no; in its own words.
        """
        return self._send("GET", path, params=_given(params))

    def post(
        self,
        path: str,
        body: Any,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """Send JSON to a path and return the JSON that comes back.

        Raises:
            RefusedError: As `get`.
        """
        return self._send(
            "POST",
            path,
            params=_given(params),
            json=body,
            headers=dict(headers or {}),
            timeout=timeout_s,
        )

    def events(self, path: str) -> Generator[Event, None, None]:
        """Yield a stream's events; a broken stream is taken up after the last event seen.

        Raises:
            RefusedError: As `get`, or the stream broke several times with nothing in between.
        """
        last, fruitless = "", 0
        while True:
            headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
            broken: Exception | None = None
            try:
                with self._client.stream("GET", path, headers=headers, timeout=None) as response:
                    if response.is_error:
                        response.read()
                        raise RefusedError(_problem(response))
                    for event in parse(response.iter_lines()):
                        fruitless = 0
                        last = event.id or last
                        yield event
            except httpx.TransportError as error:
                broken = error
            fruitless += 1
            if fruitless > _RETRIES_MAX:
                raise RefusedError(
                    _away(self.url, broken or ConnectionError("the stream ends at once"))
                )
            time.sleep(min(_PAUSE_S_MAX, 0.1 * 2**fruitless))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.UnsupportedProtocol as error:
            raise RefusedError(
                f"HEADWATER_URL {self.url!r} is no http:// or https:// address", status=WRONG_USAGE
            ) from error
        except httpx.ConnectError as error:
            raise RefusedError(_away(self.url, error)) from error
        except httpx.TransportError as error:
            raise UnansweredError(_away(self.url, error)) from error
        if response.is_server_error:  # or a proxy's, which has heard nothing
            raise UnansweredError(_problem(response))
        if response.is_error:
            raise RefusedError(_problem(response))
        try:
            return response.json()
        except ValueError as error:
            raise RefusedError(
                f"{self.url}{path} answered no JSON: is that a headwater gateway? See HEADWATER_URL"
            ) from error


@contextlib.contextmanager
def connect() -> Iterator[Gateway]:
    """Yield the gateway that `HEADWATER_URL` and `HEADWATER_TOKEN[_FILE]` name.

    Raises:
        RefusedError: The token's file cannot be read.
        SettingsError: A variable begins with `HEADWATER_` and is no setting.
    """
    refuse_unknown(os.environ)
    token = os.environ.get("HEADWATER_TOKEN", "")
    if file := os.environ.get("HEADWATER_TOKEN_FILE", ""):
        try:
            token = pathlib.Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise RefusedError(
                f"HEADWATER_TOKEN_FILE {file}: {error.strerror}", status=WRONG_USAGE
            ) from error
    gateway = Gateway(os.environ.get("HEADWATER_URL", "") or URL, token)
    try:
        yield gateway
    finally:
        gateway.close()


def by(name: str = "") -> dict[str, str]:
    """Return who wants something, as a body says it; a token says that itself."""
    named = os.environ.get("HEADWATER_TOKEN") or os.environ.get("HEADWATER_TOKEN_FILE")
    said = name or ("" if named else user())
    return {"by": said} if said else {}


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Read server-sent events from lines.

    Source: the HTML standard, section 9.2.6, less the fields that nobody here sends.
    """
    own, kind, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(id=own, type=kind or "message", data="\n".join(data))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id":
            own = value
        elif name == "event":
            kind = value


def _given(params: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (params or {}).items() if value}


def _away(url: str, error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return (
            f"{url} did not answer in time ({type(error).__name__}): its Kafka is away, which `headwater "
            "doctor` tells, or it has too much to do. Try again"
        )
    return (
        f"cannot reach {url} ({error}): start `headwater run --role gateway`, or `headwater dev`; or set "
        "HEADWATER_URL"
    )


def _problem(response: httpx.Response) -> str:
    """Return what a gateway's problem document says, in one line."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return (
            f"{response.request.url} answered {response.status_code}: is that a headwater gateway?"
        )
    if response.status_code == _UNAUTHORIZED:
        return (
            f"{response.request.url.copy_with(path='', query=None)} wants a token that it knows: set "
            "HEADWATER_TOKEN, or HEADWATER_TOKEN_FILE"
        )
    title = str(problem.get("title") or response.reason_phrase)
    detail = str(problem.get("detail") or "")
    words = detail if detail.startswith(title) else f"{title}: {detail}" if detail else title
    missing = response.status_code == _MISSING and "/runs/" in response.request.url.path
    hint = "; see `headwater runs list`" if missing else ""
    return f"{' '.join(words.split())}{hint}"
