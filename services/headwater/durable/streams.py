"""A run's own dice: bytes, integers and generators that are the same every time it is replayed."""

from __future__ import annotations

import hashlib
from random import Random
from uuid import UUID

from headwater.errors import ConfinementError

_KEY_BYTES = 32
_BLOCK_BYTES = 64


class Streams:
    """What a run draws instead of chance, and what the turn under way does wrong.

    Every draw is a function of the run's seed, of the place in the program that draws and of how often
    it did before, so nothing but counters survives between turns. Places are apart because libraries
    draw once a process, when something is first used: that must not shift what others draw. Generators
    are made when first used: one takes 2.5 KB.

    Args:
        seed: The run's id.
    """

    __slots__ = ("_draws", "_key", "_module", "_own", "_uuids", "discarding", "now_ms", "violation")

    def __init__(self, seed: str) -> None:
        self._key = hashlib.blake2b(seed.encode(), digest_size=_KEY_BYTES).digest()
        self._draws: dict[str, int] = {}
        self._uuids = 0
        self._module: Random | None = None
        self._own: Random | None = None
        self.now_ms = 0
        """Run time: milliseconds since 1970."""
        self.violation: ConfinementError | None = None
        """The first attempt to touch the world; it ends the delivery even if the code caught it."""
        self.discarding = False
        """The execution is being closed: nothing it does is kept."""

    def draw(self, size: int, place: str) -> bytes:
        """Return the next bytes for a place in the program, as `os.urandom` would."""
        number = self._draws[place] = self._draws.get(place, 0) + 1
        blocks = [
            self._block(b"bytes", number, f"{place} {block}".encode())
            for block in range(-(-size // _BLOCK_BYTES))
        ]
        return b"".join(blocks)[:size]

    def integer(self, place: str) -> int:
        """Return a fresh seed, for a generator that was made without one."""
        return int.from_bytes(self.draw(16, place), "big")

    def uuid(self) -> UUID:
        """Return the run's next UUID (version 4), apart from all other draws."""
        self._uuids += 1
        return UUID(bytes=self._block(b"uuid", self._uuids)[:16], version=4)

    @property
    def node(self) -> int:
        """48 bits that stand for the machine's address in `uuid1`, marked as made up."""
        return int.from_bytes(self._block(b"node", 0)[:6], "big") | (1 << 40)

    @property
    def salt(self) -> int:
        """Where the run's hashes of tasks and futures begin."""
        return int.from_bytes(self._block(b"salt", 0)[:7], "big")

    @property
    def module(self) -> Random:
        """The generator behind the functions of the module `random` during the run's turns."""
        if self._module is None:
            self._module = self._generator(b"module")
        return self._module

    @property
    def own(self) -> Random:
        """The generator that the function asks for by name."""
        if self._own is None:
            self._own = self._generator(b"own")
        return self._own

    def _generator(self, purpose: bytes) -> Random:
        return Random(int.from_bytes(self._block(purpose, 0), "big"))  # noqa: S311 - a generator that is the same every time

    def _block(self, purpose: bytes, number: int, place: bytes = b"") -> bytes:
        person = purpose.ljust(16, b"\0")
        data = number.to_bytes(8, "big") + place
        return hashlib.blake2b(data, key=self._key, person=person).digest()
