"""Finding the app: `--app`, `HEADWATER_APP`, or `[tool.headwater] app` in the working directory."""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import tomllib
from typing import Any

from headwater.cli.shell import WRONG_USAGE, RefusedError, nearest
from headwater.errors import HeadwaterError
from headwater.sdk.app import App

_WAYS = (
    "name it with --app MODULE:APP, HEADWATER_APP, or [tool.headwater] app in ./pyproject.toml "
    "(`headwater init NAME` makes a project that has one)"
)
_KEYS = ("app", "tenant")
"""Of `[tool.headwater]`."""


def project() -> dict[str, Any]:
    """Return `[tool.headwater]` of the working directory's pyproject.toml; empty if there is none.

    Raises:
        RefusedError: The file is no TOML, or the table has a key that there is none of.
    """
    path = pathlib.Path("pyproject.toml")
    if not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RefusedError(f"pyproject.toml cannot be read: {error}", status=WRONG_USAGE) from error
    section = found.get("tool", {}).get("headwater", {})
    if not isinstance(section, dict):
        raise RefusedError("pyproject.toml: [tool.headwater] is not a table", status=WRONG_USAGE)
    for key in section:
        _check_key(key)
    return section


def _check_key(key: str) -> None:
    if key in _KEYS:
        return
    if near := nearest(key, _KEYS):
        hint = f"did you mean {near!r}?"
    else:
        hint = f"it has {' and '.join(_KEYS)}; what else there is to set, HEADWATER_* sets"
    raise RefusedError(
        f"pyproject.toml: [tool.headwater] has no key {key!r}: {hint}", status=WRONG_USAGE
    )


def origin(option: str) -> tuple[str, str]:
    """Return which app is named, and where: an option, a variable, or a key; empty if nowhere."""
    try:
        return _named(option)
    except RefusedError:
        return "", ""


def tenant(option: str) -> str:
    """Return the tenant: the option, or `[tool.headwater] tenant`, or none, which the door fills in."""
    return option or str(project().get("tenant", ""))


def load(option: str) -> App:
    """Import the app.

    Args:
        option: `MODULE:APP`, or empty for the other ways.

    Raises:
        RefusedError: There is none, or it cannot be imported.
    """
    named, source = _named(option)
    module_name, _, attribute = named.partition(":")
    if not module_name or not attribute:
        raise RefusedError(
            f"{source} {named!r} is not MODULE:APP, for example desk:app", status=WRONG_USAGE
        )
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[0] == error.name.split(".")[0]:
            raise RefusedError(
                f"{source} names module {module_name!r}, which is not in {here} and not installed: {_WAYS}",
                status=WRONG_USAGE,
            ) from error
        raise RefusedError(f"{module_name} cannot be imported: {error}; install it") from error
    except HeadwaterError:
        raise  # it says itself what is declared so that it cannot work
    except Exception as error:
        raise RefusedError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}; --debug shows where"
        ) from error
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, App):
        there = sorted(name for name, value in vars(module).items() if isinstance(value, App))
        hint = f"it has {', '.join(there)}" if there else "it has no headwater.App at all"
        raise RefusedError(
            f"{named}: {module_name} has no app {attribute!r}; {hint}", status=WRONG_USAGE
        )
    return found


def _named(option: str) -> tuple[str, str]:
    if option:
        return option, "--app"
    if named := os.environ.get("HEADWATER_APP", ""):
        return named, "HEADWATER_APP"
    if named := str(project().get("app", "")):
        return named, "[tool.headwater] app"
    raise RefusedError(f"which app? {_WAYS}", status=WRONG_USAGE)
