"""Row keys as bytes that sort as their tuples do."""

from __future__ import annotations

from headwater.core.messages import Key

_TEXT, _NUMBER = b"\x02", b"\x01"
_BIAS = 1 << 63


def row_key(kind: str, key: Key) -> bytes:
    """Return a row's key in its state topic: kind, 0x00, then the parts in order-preserving bytes.

    Text is UTF-8 with 00 escaped as 00FF and ended by 00; integers are 8 bytes, big-endian, biased
    so that negative ones sort first. A tag before each keeps text and numbers apart.
    """
    out = bytearray(kind.encode())
    out.append(0)
    for part in key:
        if isinstance(part, str):
            out += _TEXT
            out += part.encode().replace(b"\x00", b"\x00\xff")
            out.append(0)
        else:
            out += _NUMBER
            out += (part + _BIAS).to_bytes(8, "big")
    return bytes(out)
