"""Row keys as bytes that sort as their tuples do."""

from __future__ import annotations

from headwater.core.messages import Key

_TEXT, _NUMBER = b"\x02", b"\x01"
_BIAS = 1 << 63
_NUMBER_BYTES = 9
_KEPT_MAX = 4_096


def row_key(kind: str, key: Key) -> bytes:
    """Return a row's key in its state topic: kind, 0x00, then the parts in order-preserving bytes.

    Text is UTF-8 with 00 escaped as 00FF and ended by 00; integers are 8 bytes, big-endian, biased
    so that negative ones sort first. A tag before each keeps text and numbers apart.
    """
    out = [kind.encode(), b"\x00"]
    for part in key:
        if isinstance(part, str):
            out.append(_PARTS[part])
        else:
            out += (_NUMBER, (part + _BIAS).to_bytes(8, "big"))
    return b"".join(out)


class _Parts(dict[str, bytes]):
    """Texts as they stand in keys; the latest are kept, for a run's rows all begin with its id."""

    def __missing__(self, part: str) -> bytes:
        if len(self) >= _KEPT_MAX:
            self.clear()
        text = part.encode().replace(b"\x00", b"\x00\xff")
        found = self[part] = b"%b%b\x00" % (_TEXT, text)
        return found


_PARTS = _Parts()


def parted(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a row's kind, how its key begins, and what follows, all as `row_key` wrote them.

    Keys whose first parts are alike begin alike; those that begin alike may still differ, for a
    text is followed up to its first zero byte alone.

    Raises:
        ValueError: It wrote no such bytes.
    """
    kind, rest = data.split(b"\x00", 1)
    if rest[:1] == _TEXT:
        first, more = rest.split(b"\x00", 1)
        return kind, first, more
    if rest[:1] == _NUMBER and len(rest) >= _NUMBER_BYTES:
        return kind, rest[:_NUMBER_BYTES], rest[_NUMBER_BYTES:]
    raise ValueError(f"{data!r} is no row's key")


def key_of(data: bytes) -> tuple[str, Key]:
    """Return the kind and the key that `row_key` wrote.

    Raises:
        ValueError: It wrote no such bytes.
    """
    kind, rest = data.split(b"\x00", 1)
    parts: list[str | int] = []
    at, size = 0, len(rest)
    while at < size:
        tag = rest[at : at + 1]
        if tag == _TEXT:
            end = rest.index(0, at + 1)
            while rest[end + 1 : end + 2] == b"\xff":
                end = rest.index(0, end + 2)
            parts.append(rest[at + 1 : end].replace(b"\x00\xff", b"\x00").decode())
            at = end + 1
        elif tag == _NUMBER and at + 9 <= size:
            parts.append(int.from_bytes(rest[at + 1 : at + 9], "big") - _BIAS)
            at += 9
        else:
            raise ValueError(f"{data!r} is no row's key")
    return kind.decode(), tuple(parts)
