"""Callers: who asks, as their token says."""

from __future__ import annotations

import dataclasses
import hmac
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from headwater.contracts import headers as hygiene
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
        if not isinstance(given, dict) or not given:
            raise ValueError("it names no token")
        return {token: _caller(number, who) for number, (token, who) in enumerate(given.items(), 1)}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"HEADWATER_HTTP__TOKENS_FILE {file}: {why}; it is a JSON object of "
            'token: {"tenant": ..., "actor": ..., "groups": [...]}'
        ) from error


def _caller(number: int, who: Any) -> Caller:
    """Return what the file says of a token, which errors count and do not name: it is a secret."""
    of = f"token {number}"
    if not isinstance(who, dict):
        raise ValueError(f"{of}: what it names is no object")  # noqa: TRY004 - a file that says so is no bug
    if unknown := who.keys() - {"tenant", "actor", "groups"}:
        raise ValueError(f"{of}: there is no field {min(unknown)!r}")
    tenant, actor, groups = who.get("tenant", ""), who.get("actor", ""), who.get("groups", [])
    if tenant != "" and not (isinstance(tenant, str) and hygiene.valid_tenant(tenant)):
        raise ValueError(f"{of}: tenant {tenant!r}: 1 to 64 of a-z 0-9 . _ -")
    if not isinstance(actor, str):
        raise ValueError(f"{of}: actor {actor!r} is no name")  # noqa: TRY004 - likewise
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise ValueError(f"{of}: groups {groups!r} is no list of names")
    return Caller(tenant=tenant, actor=actor, groups=tuple(groups))


def only_tenant(caller: Caller, named: str) -> str:
    """Return whose things alone are meant, of a tenant that may be named; empty is everybody's.

    Raises:
        ProblemError: They are another tenant's than the token's.
    """
    if caller.tenant and named not in ("", caller.tenant):
        detail = f"tenant {named!r}: the token is of tenant {caller.tenant!r}, and has to do with no other"
        raise ProblemError(403, "Not yours", detail)
    return caller.tenant or named


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
