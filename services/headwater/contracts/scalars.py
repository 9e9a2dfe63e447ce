"""Scalars: the forms of values that have no parts."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import operator
import uuid
from collections.abc import Callable
from typing import Any

from headwater.contracts.forms import Form

_LONG_BITS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How a decimal travels: `precision` digits in all, `scale` of them after the point."""

    precision: int
    scale: int


def decimal_of(mark: Scale) -> Form:
    """Return the form of decimals of a scale; what would be rounded is refused."""
    quantum = decimal.Decimal(1).scaleb(-mark.scale)

    def dump(value: decimal.Decimal) -> bytes:
        exact = value.quantize(quantum)
        if exact != value:
            raise ValueError(f"{value} has more than {mark.scale} digits after the point")
        number = int(exact.scaleb(mark.scale))
        if len(str(abs(number))) > mark.precision:
            raise ValueError(f"{value} has more than {mark.precision} digits")
        return number.to_bytes((number.bit_length() // 8) + 1, "big", signed=True)

    return Form(
        schema={
            "type": "bytes",
            "logicalType": "decimal",
            "precision": mark.precision,
            "scale": mark.scale,
        },
        dump=lambda v: _exact(v, dump),
        python=(decimal.Decimal,),
    )


def _exact(value: decimal.Decimal, dump: Callable[[decimal.Decimal], bytes]) -> decimal.Decimal:
    dump(value)  # refuses what would be rounded
    return value


def long(value: Any) -> int:
    """Return an int that travels; the client's own error would name a C type."""
    number = operator.index(value)
    if number.bit_length() >= _LONG_BITS and number != -(1 << (_LONG_BITS - 1)):
        raise OverflowError(
            f"an int of {number.bit_length()} bits without its sign is over {_LONG_BITS} bits, which is what "
            "travels: send it as a str or a Decimal"
        )
    return number


def _aware(value: datetime.datetime) -> datetime.datetime:
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return value


SCALARS: dict[Any, Form] = {
    str: Form(schema="string", python=(str,), kind="string"),
    int: Form(schema="long", dump=long, python=(int,), kind="long"),
    float: Form(schema="double", dump=float, python=(float,)),
    bool: Form(schema="boolean", python=(bool,), kind="boolean"),
    bytes: Form(schema="bytes", python=(bytes,), kind="bytes"),
    datetime.datetime: Form(
        schema={"type": "long", "logicalType": "timestamp-micros"},
        dump=_aware,
        python=(datetime.datetime,),
    ),
    datetime.date: Form(schema={"type": "int", "logicalType": "date"}, python=(datetime.date,)),
    uuid.UUID: Form(
        schema={"type": "string", "logicalType": "uuid"},
        load=lambda v: v if isinstance(v, uuid.UUID) else uuid.UUID(v),
        python=(uuid.UUID,),
    ),
}
