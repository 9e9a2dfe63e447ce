"""Callers: who asks, as their token says."""

from __future__ import annotations

import dataclasses
import hmac
import json
import pathlib
from collections.abc import Mapping, Sequence

from starlette.requests import Request

from headwater.doors.problems import ProblemError
from headwater.errors import SettingsError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: what a token names.

    Args:
        tenant: Whose they are; none means any.
        actor: Who they are.
        groups: Groups they are in, for decisions that are put to one; `*` is all.
        anybody: Whether no token says who they are, because there are none here: they say so themselves.
    """

    tenant: str = ""
    actor: str = ""
    groups: tuple[str, ...] = ()
    anybody: bool = False


def read(file: pathlib.Path | None) -> dict[str, Caller]:
    """Read bearer tokens: a JSON object of token to {tenant, actor, groups}; no file is no tokens.

    Raises:
        SettingsError: It cannot be read as that.
    """
    if file is None:
        return {}
    try:
        given = json.loads(file.read_text())
        callers = {token: _caller(**who) for token, who in given.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"HEADWATER_HTTP__TOKENS_FILE {file}: {error}; it is a JSON object of "
            'token: {"tenant": ..., "actor": ..., "groups": [...]}'
        ) from error
    if not callers:
        raise SettingsError(f"HEADWATER_HTTP__TOKENS_FILE {file}: it names no token")
    return callers


def _caller(tenant: str = "", actor: str = "", groups: Sequence[str] = ()) -> Caller:
    if not isinstance(groups, list | tuple) or not all(isinstance(name, str) for name in groups):
        raise ValueError(f"groups {groups!r} is no list of names")
    return Caller(tenant=tenant, actor=actor, groups=tuple(groups))


def caller_of(request: Request, callers: Mapping[str, Caller]) -> Caller:
    """Return who asks; anybody where no tokens are configured, which only loopback may have.

    Raises:
        ProblemError: Nobody knows.
    """
    if not callers:
        return Caller(anybody=True)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        for known, caller in callers.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return caller
    raise ProblemError(401, "Who are you?", "send `Authorization: Bearer <token>`")
