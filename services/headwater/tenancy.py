"""Tenants: what each may have of the fleet, as an operator's file says."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated

import pydantic
import yaml

from headwater.admission.placement import Placement
from headwater.admission.quotas import Quotas
from headwater.contracts.headers import valid_tenant
from headwater.errors import SettingsError
from headwater.settings import Loops

_SHAPE = "{version: ..., tenants: {<tenant>: {runs_open_max: ..., partitions: ..., own: [...], weight: ...}}}"


def _checked(name: str) -> str:
    if not valid_tenant(name):
        raise ValueError("a tenant is 1 to 64 of a-z 0-9 . _ -")
    return name


_Tenant = Annotated[str, pydantic.AfterValidator(_checked)]
_Number = Annotated[int, pydantic.Field(ge=0)]


class Share(pydantic.BaseModel):
    """What one tenant may have; whatever is left out is as for everybody.

    Args:
        runs_open_max: Runs it may have open; more of its tasks are held.
        partitions: Over how many of an agent's partitions its runs are spread.
        own: Numbers of the partitions that are its alone, in every agent's inbox.
        weight: How many of its calls start in its turn, where several tenants wait.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    runs_open_max: int | None = pydantic.Field(None, ge=1)
    partitions: int | None = pydantic.Field(None, ge=1)
    own: tuple[_Number, ...] = ()
    weight: int | None = pydantic.Field(None, ge=1)

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> Share:
        if self.own and self.partitions is not None:
            raise ValueError("own partitions, or over how many it is spread: not both")
        return self


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    version: int = pydantic.Field(1, ge=1)
    tenants: dict[_Tenant, Share] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _apart(self) -> _Table:
        whose: dict[int, str] = {}
        for tenant, share in self.tenants.items():
            for number in share.own:
                if whose.setdefault(number, tenant) != tenant:
                    raise ValueError(
                        f"partition {number} is {whose[number]}'s own already, not {tenant}'s too"
                    )
        return self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """What tenants may have, as loops take it.

    Args:
        quotas: How many runs they may have open.
        placement: Which partitions they may use.
        weights: How many of their calls start in their turn.
    """

    quotas: Quotas
    placement: Placement
    weights: Mapping[str, int]


def tenancy_of(file: pathlib.Path | None, loops: Loops) -> Tenancy:
    """Return what tenants may have.

    Args:
        file: YAML or JSON; none is nothing that one tenant has and others have not.
        loops: What everybody has.

    Raises:
        SettingsError: The file cannot be read; the message names it and the field.
    """
    table = _Table() if file is None else _read(file)
    named = table.tenants.items()
    return Tenancy(
        quotas=Quotas(
            version=table.version,
            default=loops.runs_open_max,
            of={name: of.runs_open_max for name, of in named if of.runs_open_max is not None},
        ),
        placement=Placement(
            version=table.version,
            spread={name: of.partitions for name, of in named if of.partitions is not None},
            fixed={name: of.own for name, of in named if of.own},
        ),
        weights={
            **loops.calls_weights,
            **{name: of.weight for name, of in named if of.weight is not None},
        },
    )


def _read(file: pathlib.Path) -> _Table:
    try:
        return _Table.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"HEADWATER_TENANTS__FILE {file}: {where}: {said}; it is {_SHAPE}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise SettingsError(f"HEADWATER_TENANTS__FILE {file}: {words}") from error
