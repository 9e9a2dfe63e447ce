"""Values that are made quickly are as frozen as others."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.contracts.frozen import quick


@quick
@dataclasses.dataclass(frozen=True, slots=True)
class Quick:
    """Has a field of each kind, some by place and some by name alone."""

    x: int
    y: int = 5
    z: list[int] = dataclasses.field(default_factory=list)
    _: dataclasses.KW_ONLY
    name: str
    rest: tuple[int, ...] = ()


@quick
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Looks at itself once it is made."""

    number: int

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: A number below zero.
        """
        if self.number < 0:
            raise ValueError(self.number)


def test_quick_values_take_what_dataclasses_take() -> None:
    """By place, by name, by default; replaced, compared, hashed and shown as any other."""
    value = Quick(1, name="a")
    assert (value.x, value.y, value.z, value.name, value.rest) == (1, 5, [], "a", ())
    assert Quick(1, name="a").z is not value.z
    assert Quick(1, 2, [3], name="a", rest=(4,)) == dataclasses.replace(
        value, y=2, z=[3], rest=(4,)
    )
    assert repr(value).endswith("Quick(x=1, y=5, z=[], name='a', rest=())")
    assert {Checked(number=1): 2}[Checked(number=1)] == 2
    with pytest.raises(TypeError, match=r"Quick.__init__\(\) missing 1 required"):
        Quick(1)  # type: ignore[call-arg] # the mistake that is refused
    with pytest.raises(TypeError):
        Checked(1)  # type: ignore[misc] # by name alone


def test_quick_values_are_frozen_and_look_at_themselves() -> None:
    """Nothing changes a field afterwards; `__post_init__` may refuse."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Checked(number=1).number = 2  # type: ignore[misc] # the mistake that is refused
    with pytest.raises(ValueError, match="-1"):
        Checked(number=-1)
