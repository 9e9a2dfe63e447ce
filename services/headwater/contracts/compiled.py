"""Compiled forms: functions that write a value as Avro and read it back, made once for each type.

They write what fastavro writes, byte for byte, in a third of the time, because no dict is made on the
way and nobody asks at run time what type a field has. They take the plain case only: whatever they
cannot write or read as it stands they leave to fastavro, which takes it after all or says what is
wrong. A type with a part they do not know, a timestamp for example, has none.
"""

from __future__ import annotations

import abc
import enum
import operator
from collections.abc import Callable
from typing import Any, cast

from headwater.contracts import scalars
from headwater.contracts.forms import Form, making

Write = Callable[[Any], bytes]
Read = Callable[[bytes, int], tuple[Any, int]]
"""Of bytes and where to begin: the value, and where it ended."""

_BITS = 64
_KEPT_MAX = 16_384
_KEPT_BYTES_MAX = 128
_ONE_BYTE = 0x80
_PAIR_BITS = 14
_PAIR = (1 << _PAIR_BITS) - 1
_PAIRS = tuple(
    bytes([low | _ONE_BYTE, high | _ONE_BYTE]) for high in range(128) for low in range(128)
)
"""Two bytes of a varint that goes on, by the fourteen bits in them."""


class UnusualError(Exception):
    """Bytes that may be Avro, but not as it is usually written."""


class _Numbers(dict[int, bytes]):
    """Numbers as zigzag varints; the latest are kept, for offsets and times come again and again."""

    def __missing__(self, number: int) -> bytes:
        left, out = (number << 1) ^ (number >> (_BITS - 1)), b""
        if left >> _BITS:
            raise OverflowError(f"{number} is over {_BITS} bits")
        while left > _PAIR:
            out += _PAIRS[left & _PAIR]
            left >>= _PAIR_BITS
        out += bytes([left & 0x7F | _ONE_BYTE, left >> 7]) if left >= _ONE_BYTE else bytes([left])
        if len(self) >= _KEPT_MAX:
            self.clear()
        self[number] = out
        return out


_NUMBERS = _Numbers()


class _Texts(dict[str, bytes]):
    """Texts as they are written, size first; the latest short ones are kept.

    A turn writes its run's id in each of its records, and names, kinds and empty texts everywhere.
    """

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        found = _NUMBERS[len(data)] + data
        if len(data) <= _KEPT_BYTES_MAX:
            if len(self) >= _KEPT_MAX:
                self.clear()
            self[text] = found
        return found


_TEXTS = _Texts()


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint of two bytes or more as it is written, zigzag, and where it ended.

    Up to the six bytes of a time it is written out, which takes a third less than a loop.
    """
    value = data[at] & 0x7F
    if (byte := data[at + 1]) < _ONE_BYTE:
        return value | byte << 7, at + 2
    value |= (byte & 0x7F) << 7
    if (byte := data[at + 2]) < _ONE_BYTE:
        return value | byte << 14, at + 3
    value |= (byte & 0x7F) << 14
    if (byte := data[at + 3]) < _ONE_BYTE:
        return value | byte << 21, at + 4
    value |= (byte & 0x7F) << 21
    if (byte := data[at + 4]) < _ONE_BYTE:
        return value | byte << 28, at + 5
    value |= (byte & 0x7F) << 28
    if (byte := data[at + 5]) < _ONE_BYTE:
        return value | byte << 35, at + 6
    return _long(data, at)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint, however long it is, and where it ended."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _ONE_BYTE:
            if value >> _BITS:
                raise UnusualError
            return value, at
        shift += 7
        if shift > _BITS:
            raise UnusualError


def _nothing(value: None) -> bytes:
    """Write what takes no bytes."""
    return b""


def _size(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint of two bytes or more that is no negative number's."""
    if data[at] & 1:
        raise UnusualError
    return _number(data, at)


def writer(form: Form) -> Write | None:
    """Return what writes values of a form; `None` if fastavro has to."""
    return cast("Write | None", _compiled(form, _Writers))


def reader(form: Form) -> Read | None:
    """Return what reads values of a form; `None` if fastavro has to."""
    return cast("Read | None", _compiled(form, _Readers))


def field_reader(form: Form, field: str) -> Callable[[bytes, int], Any] | None:
    """Return what reads one field of a record, and nothing after it; `None` if fastavro has to.

    It takes bytes and where the record begins.
    """
    source = _Readers()
    try:
        name = source.field(form, field)
    except LookupError:
        return None
    return cast("Callable[[bytes, int], Any]", source.made(name, form))


def _compiled(form: Form, of: type[_Writers | _Readers]) -> Any:
    source = of()
    try:
        name = source.function(form)
    except LookupError:
        return None
    return source.made(name, form)


class _Source(abc.ABC):
    """Python text in the making: a function for each form that is more than a plain scalar."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "N": _NUMBERS,
            "S": _TEXTS,
            "index": operator.index,
            "nothing": _nothing,
            "number": _number,
            "size": _size,
            "Unusual": UnusualError,
        }
        self._records: dict[str, str] = {}
        self._empty: set[str] = set()

    def known(self, kind: str, value: Any) -> str:
        """Put a value where the functions find it; return its name there."""
        name = f"{kind}{len(self.scope)}"
        self.scope[name] = value
        return name

    def record(self, form: Form) -> tuple[str, bool]:
        """Return the name of a record's function, and whether it is to be made now.

        A record that was met before is only named, for it may hold itself.
        """
        name = self._records.get(form.record)
        if name is None:
            name = self._records[form.record] = self.known("record", None)
        if isinstance(form.schema, str):
            return name, False
        if not form.fields:
            self._empty.add(form.record)
        return name, True

    def item(self, form: Form) -> str:
        """Make the function of a list's items; return its name.

        Items of no bytes would let a few bytes stand for any number of them.
        """
        name = self.function(form)
        if form.record in self._empty:
            raise LookupError(form.record)
        return name

    def made(self, name: str, form: Form) -> Any:
        """Return the function of this name, compiled with those it calls."""
        text = compile("\n".join(self.lines), f"<{type(self).__name__} of {form.record}>", "exec")
        exec(text, self.scope)  # noqa: S102 - of forms alone, whose names are plain
        return self.scope[name]

    @abc.abstractmethod
    def function(self, form: Form) -> str:
        """Make a form's function; return its name."""


class _Writers(_Source):
    """Functions of a value that return its bytes."""

    def function(self, form: Form) -> str:
        if form.kind == "wrapped":
            return self.function(form.parts[0])
        if form.kind == "union":
            return self._union(form)
        if form.kind == "record":
            name, fresh = self.record(form)
            if not fresh:
                return name
            pieces = [
                piece for field, of in form.fields for piece in self._pieces(of, f"v.{field}")
            ]
        else:
            name, pieces = self.known("write", None), self._pieces(form, "v")
        whole = pieces[0] if len(pieces) == 1 else f"b''.join([{', '.join(pieces)}])"
        self.lines.append(f"def {name}(v):\n return {whole}")
        return name

    def _union(self, form: Form) -> str:
        """A member is found by the value's type, which no two of them share."""
        null = form.schema[0] == "null"
        members = {type(None): "b'\\0', nothing"} if null else {}
        for place, part in enumerate(form.parts, start=null):
            if part.kind not in _MEMBERS:
                raise LookupError(part.kind)
            write = self.function(part)
            members |= {python: f"{bytes([place * 2])!r}, {write}" for python in part.python}
        table = ", ".join(f"{self.known('type', of)}: ({how})" for of, how in members.items())
        name = self.known("write", None)
        names = self.known("members", None)
        self.lines += [
            f"{names} = {{{table}}}",
            f"def {name}(v):\n place, write = {names}[type(v)]\n return place + write(v)",
        ]
        return name

    def _pieces(self, form: Form, value: str) -> list[str]:
        """Return expressions whose bytes, one after another, are the value's."""
        kind = form.kind
        # `N` refuses what `scalars.long` does, and fastavro's way says why.
        if kind in _SCALARS and form.dump not in (None, scalars.long):
            value = f"{self.known('dump', form.dump)}({value})"
        if kind == "string":
            return [f"S[{value}]"]
        if kind == "bytes":
            return [f"N[len(s := {value})]", "s"]
        if kind == "long":
            return [f"N[index({value})]"]
        if kind == "boolean":
            return [f"{self.known('boolean', {False: bytes(1), True: bytes([1])})}[{value}]"]
        if kind == "enum":
            places = {name: bytes([n * 2]) for n, name in enumerate(_symbols(form))}
            return [f"{self.known('places', places)}[{value}.name]"]
        if kind == "optional":
            write = self.function(form.parts[0])
            return [f"b'\\0' if (o := {value}) is None else b'\\2' + {write}(o)"]
        if kind in {"list", "tuple"}:
            write = self.item(form.parts[0])
            some = f"N[len(a)] + b''.join([{write}(i) for i in a]) + b'\\0'"
            return [f"{some} if (a := {value}) else b'\\0'"]
        if kind in {"record", "union"}:
            return [f"{self.function(form)}({value})"]
        raise LookupError(kind)


class _Readers(_Source):
    """Functions of bytes and a place that return the value there, and the place after it."""

    def function(self, form: Form) -> str:
        if form.kind == "wrapped":
            return self.function(form.parts[0])
        if form.kind != "record":
            name, steps, value = self.known("read", None), self._steps(form, "f"), "f"
        else:
            name, fresh = self.record(form)
            if not fresh:
                return name
            steps, values = [], {}
            for place, (field, of) in enumerate(form.fields):
                values[field] = f"f{place}"
                steps += self._steps(of, f"f{place}")
            value = making(form.python[0], values, self.scope)
        body = "".join(f" {line}\n" for line in steps)
        self.lines.append(f"def {name}(b, at):\n{body} return {value}, at")
        return name

    def field(self, form: Form, wanted: str) -> str:
        """Make a function that reads one field of a record; return its name."""
        place = [field for field, _ in form.fields].index(wanted)
        steps = [line for _, of in form.fields[:place] for line in self._passing(of)]
        steps += self._steps(form.fields[place][1], "f")
        name = self.known("read", None)
        body = "".join(f" {line}\n" for line in steps)
        self.lines.append(f"def {name}(b, at):\n{body} return f")
        return name

    def _steps(self, form: Form, to: str) -> list[str]:
        """Return lines that read a value into a variable."""
        kind = form.kind
        if kind == "record":
            return [f"{to}, at = {self.function(form)}(b, at)"]
        steps = ["n = b[at]; at += 1"]
        if kind in {"string", "bytes"}:
            text = ".decode()" if kind == "string" else ""
            steps += [_SIZE, f"at, e = at + (n >> 1), at; {to} = b[e:at]{text}"]
        elif kind == "long":
            steps += ["if n > 127: n, at = number(b, at - 1)", f"{to} = (n >> 1) ^ -(n & 1)"]
        elif kind == "boolean":
            steps += ["if n > 1: raise Unusual", f"{to} = n == 1"]
        elif kind == "enum":
            assert form.load is not None, "an enum is made of its member's name"
            members = tuple(form.load(name) for name in _symbols(form))
            return [
                *steps,
                "if n & 129: raise Unusual",
                f"{to} = {self.known('of', members)}[n >> 1]",
            ]
        elif kind in {"optional", "union"}:
            return steps + self._chosen(form, to, lambda part: self._steps(part, to))
        elif kind in {"list", "tuple"}:
            item = self.item(form.parts[0])
            made = f"{to} = {kind}({to})" if kind == "tuple" else "pass"
            return [
                *steps, _SIZE, f"{to} = []",
                "if n:",
                f" for _ in range(n >> 1): i, at = {item}(b, at); {to}.append(i)",
                " if b[at]: raise Unusual",
                " at += 1",
                made,
            ]  # fmt: skip
        else:
            raise LookupError(kind)
        if form.load is not None:
            steps.append(f"{to} = {self.known('load', form.load)}({to})")
        return steps

    def _passing(self, form: Form) -> list[str]:
        """Return lines that pass over a value."""
        kind, steps = form.kind, ["n = b[at]; at += 1"]
        if kind in {"string", "bytes"}:
            return [*steps, _SIZE, "at += n >> 1"]
        if kind in {"list", "tuple"}:
            self.item(form.parts[0])  # refuses items of no bytes
            return [
                *steps, _SIZE,
                "if n:",
                " for _ in range(n >> 1):",
                *(f"  {line}" for line in self._passing(form.parts[0])),
                " if b[at]: raise Unusual",
                " at += 1",
            ]  # fmt: skip
        if kind == "union":
            return steps + self._chosen(form, "f", self._passing)
        return self._steps(form, "f")

    def _chosen(self, form: Form, to: str, of: Callable[[Form], list[str]]) -> list[str]:
        """Return lines that read the member whose place in a union was read; `of` one member's."""
        null = form.kind == "optional" or form.schema[0] == "null"
        steps = [f"if n == 0: {to} = None"] if null else []
        for place, part in enumerate(form.parts, start=null):
            word = "elif" if steps else "if"
            steps += [f"{word} n == {place * 2}:", *(f" {line}" for line in of(part))]
        return [*steps, "else: raise Unusual"]


def _symbols(form: Form) -> list[str]:
    """Return an enum's names, in the order in which Avro numbers them."""
    names = [member.name for member in cast("type[enum.Enum]", form.python[0])]
    if len(names) > _SYMBOLS_MAX:
        raise LookupError(form.kind)
    return names


_SCALARS = frozenset({"string", "bytes", "long", "boolean"})
_MEMBERS = frozenset({"string", "bytes", "long", "record"})
"""What can be told apart by a value's type alone."""
_SYMBOLS_MAX = 64
_SIZE = "if n & 129: n, at = size(b, at - 1)"
