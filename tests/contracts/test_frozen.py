"""Frozen values that are made quickly are the values that their classes make."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.contracts.frozen import copier, is_quick, maker, quick, setters


@quick
@dataclasses.dataclass(frozen=True, slots=True)
class Sum:
    """Of every kind of field."""

    place: int
    given: str = "x"
    made: list[int] = dataclasses.field(default_factory=list)
    named: int = dataclasses.field(default=7, kw_only=True)
    total: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.place + self.named)


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """Not quick."""

    place: int


def test_a_maker_makes_what_the_class_does() -> None:
    """By place and by name, with defaults, factories and what follows."""
    make = maker(Sum)
    assert make(1) == Sum(1)
    assert make(1).total == 8
    assert make(1, "y", [2], named=3) == Sum(place=1, given="y", made=[2], named=3)
    assert make(1).made is not make(1).made
    assert maker(Plain)(place=2) == Plain(2)


def test_a_maker_takes_what_the_class_takes() -> None:
    """An argument too few, or one that there is not, is refused."""
    make = maker(Sum)
    for wrong in (make, lambda: make(1, "y", [], 3), lambda: make(1, other=2)):
        with pytest.raises(TypeError):
            wrong()


def test_what_is_made_is_frozen() -> None:
    """However it was made."""
    for value in (Sum(1), maker(Sum)(1), copier(Sum)(Sum(1))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.given = "y"  # type: ignore[misc] # that is what is refused


def test_a_copy_is_a_value_of_its_own() -> None:
    """Its fields can be set while nobody else has it, and the original stays as it was."""
    value = Sum(1, named=2)
    copy = copier(Sum)(value)
    assert copy == value
    setters(Sum)["given"](copy, "changed")
    assert (copy.given, value.given) == ("changed", "x")


def test_only_quick_classes_are_known_as_such() -> None:
    """Another class may do more than fill its fields."""
    assert is_quick(Sum)
    assert not is_quick(Plain)
