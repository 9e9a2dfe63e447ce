"""The done-set: which offsets beyond a group's committed one are done, as text beside that offset.

The text is a version character, then blocks of base 94 (printable ASCII, 9 bytes in 11 characters)
over: form (0 raw, 1 deflated), base (8 bytes), CRC-32 of base and bits (4 bytes), bits. A window of
16,384 offsets that compress badly takes 2,520 characters; Kafka takes 4,096.
"""

from __future__ import annotations

import struct
import zlib

WINDOW = 16_384
"""Offsets a done-set can speak of, from its base on."""
CHARS_MAX = 2_561
"""Longest text of a window."""
VERSION = "1"
_BLOCK, _DIGITS, _BASE, _FIRST = 9, 11, 94, 33
_HEAD = struct.Struct(">BQI")
_RAW, _DEFLATED = 0, 1


class UndecodableError(ValueError):
    """Text that is no done-set of this version, or not of this offset."""


def encode(base: int, bits: bytes) -> str:
    """Write which offsets from `base` on are done.

    Args:
        base: The committed offset.
        bits: Bit `n % 8` of byte `n // 8` says whether offset `base + n` is done; what is beyond the
            window is left out.

    Returns:
        Text of at most `CHARS_MAX` characters; empty if nothing is done.
    """
    raw = bits[: WINDOW // 8].rstrip(b"\x00")
    if not raw:
        return ""
    deflated = zlib.compress(raw, 1)
    form, body = (_DEFLATED, deflated) if len(deflated) < len(raw) else (_RAW, raw)
    return VERSION + _text(_HEAD.pack(form, base, _check(base, raw)) + body)


def decode(base: int, text: str) -> frozenset[int]:
    """Return the offsets that are done.

    Args:
        base: The committed offset that the text stood beside.
        text: What was beside it; empty means none.

    Raises:
        UndecodableError: It was written by another version or another program, or is damaged.
    """
    if not text:
        return frozenset()
    if text[0] != VERSION:
        raise UndecodableError(f"it begins with {text[0]!r}, not with version {VERSION}")
    if len(text) > CHARS_MAX:
        raise UndecodableError(f"it has {len(text)} characters, more than {CHARS_MAX}")
    data = _bytes(text[1:])
    if len(data) < _HEAD.size:
        raise UndecodableError("it is cut off")
    form, stated, check = _HEAD.unpack_from(data)
    bits = data[_HEAD.size :]
    if form == _DEFLATED:
        bits = _inflated(bits)
    elif form != _RAW:
        raise UndecodableError(f"form {form} is not known")
    if stated != base:
        raise UndecodableError(f"it is of offset {stated}, not of {base}")
    if check != _check(base, bits):
        raise UndecodableError("its checksum is wrong")
    if len(bits) * 8 > WINDOW:
        raise UndecodableError("it speaks of more than a window")
    return frozenset(
        base + (at << 3) + bit
        for at, byte in enumerate(bits)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    )


def _check(base: int, bits: bytes) -> int:
    return zlib.crc32(bits, zlib.crc32(base.to_bytes(8, "big")))


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        bits = inflater.decompress(body, WINDOW // 8 + 1)
    except zlib.error as error:
        raise UndecodableError(f"it does not inflate: {error}") from error
    if not inflater.eof or inflater.unconsumed_tail or inflater.unused_data:
        raise UndecodableError("it does not inflate to its end")
    return bits


def _text(data: bytes) -> str:
    """Write bytes as base 94, block by block; a last, shorter block has as many digits as it needs."""
    out: list[str] = []
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        value = int.from_bytes(block, "big")
        digits = []
        for _ in range(_digits(len(block))):
            value, digit = divmod(value, _BASE)
            digits.append(chr(_FIRST + digit))
        out += reversed(digits)
    return "".join(out)


def _bytes(text: str) -> bytes:
    out = bytearray()
    for start in range(0, len(text), _DIGITS):
        block = text[start : start + _DIGITS]
        size = _SIZES.get(len(block))
        value = 0
        for char in block:
            digit = ord(char) - _FIRST
            if not 0 <= digit < _BASE:
                raise UndecodableError(f"{char!r} is none of its digits")
            value = value * _BASE + digit
        if size is None or value >> (8 * size):
            raise UndecodableError("a block of it is out of range")
        out += value.to_bytes(size, "big")
    return bytes(out)


def _digits(size: int) -> int:
    """Return how many digits a block of so many bytes takes."""
    digits = 0
    while _BASE**digits < 256**size:
        digits += 1
    return digits


_SIZES = {_digits(size): size for size in range(1, _BLOCK + 1)}
