"""A TCP proxy between one Kafka client and its broker that meddles with some of its requests.

It understands just enough of the protocol: frames, the API key and correlation id of a request,
and the broker's address in answers, which it replaces by its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from enum import Enum

LIST_OFFSETS = 2
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
LATE_S = 1.0
_SIZE = struct.Struct(">i")
_HEADER = struct.Struct(">hhi")


class Fault(Enum):
    """What happens to the next end of a transaction."""

    NONE = "none"
    SWALLOW_REPLY = "its reply is swallowed"
    DELAY_REPLY = "its reply comes late"
    HOLD_REQUEST = "it arrives late, when another transaction is under way"


class Proxy:
    """Forwards to one broker on this machine.

    Args:
        bootstrap: The broker, by the address that it tells its clients.
        delay_s: How late a delayed reply comes.
        slow: Requests, by API key, whose replies are all delayed.
        host: Where to listen; as many characters as the broker's own host has.
        release_at: Lets go of what was held back once the same client's next request of this API key is
            answered, just before the client hears it; -1 for whoever calls `release`.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        delay_s: float,
        slow: frozenset[int] = frozenset(),
        host: str = "127.0.0.1",
        release_at: int = -1,
    ) -> None:
        self.slow = slow
        self._release_at = release_at
        theirs, _, port = bootstrap.rpartition(":")
        assert len(host) == len(theirs), "answers keep their length"
        self._broker = (theirs, int(port))
        self._delay_s = delay_s
        self._listener = socket.create_server((host, 0))
        self.bootstrap = f"{host}:{self._listener.getsockname()[1]}"
        self._theirs = _address(theirs, int(port))
        self._ours = _address(host, int(self.bootstrap.rpartition(":")[2]))
        self._lock = threading.Lock()
        self._fault = Fault.NONE
        self._held: tuple[Link, bytes] | None = None
        self._links: list[Link] = []
        self.met = 0
        """How many ends of transactions met a fault."""
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def holds(self) -> bool:
        """Whether a request is held back."""
        return self._held is not None

    def arm(self, fault: Fault) -> None:
        """Have the next end of a transaction meet a fault."""
        with self._lock:
            self._fault = fault

    def release(self, wait_s: float) -> bool:
        """Send the broker what was held back; return whether it answered in time."""
        with self._lock:
            held, self._held = self._held, None
        if held is None:
            return False
        link, frame = held
        return link.send_late(frame, wait_s)

    def close(self) -> None:
        """Cut every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would accept one more
        self._listener.close()
        for link in self._links:
            link.close()

    def take_fault(self) -> Fault:
        """Return the fault that is armed, once."""
        with self._lock:
            fault, self._fault = self._fault, Fault.NONE
            self.met += fault is not Fault.NONE
            return fault

    def hold(self, link: Link, frame: bytes) -> None:
        """Keep a request back."""
        with self._lock:
            self._held = (link, frame)

    def waits_for(self, key: int, frame: bytes) -> bool:
        """Say whether what is held back is let go of at the answer to this request."""
        held = self._held
        return held is not None and key == self._release_at and _client(held[1]) == _client(frame)

    def let_go(self, by: Link) -> None:
        """Let go of what is held back, and wait until the broker has answered, unless this link is asked."""
        held = self._held
        if held is not None:
            self.release(0 if held[0] is by else LATE_S)

    def disguise(self, answer: bytes) -> bytes:
        """Replace the broker's address by ours."""
        return answer.replace(self._theirs, self._ours)

    @property
    def delay_s(self) -> float:
        """How late a delayed reply comes."""
        return self._delay_s

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(Link(self, client, socket.create_connection(self._broker)))


class Link:
    """One connection of the client and its counterpart to the broker.

    Args:
        proxy: Knows which fault is armed.
        client: The client's end.
        broker: The broker's end.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._replies: dict[int, Fault] = {}
        self._lets_go: set[int] = set()
        """Requests at whose answers what is held back is let go of."""
        self._late: int | None = None
        self._late_answered = threading.Event()
        for run in (self._requests, self._answers):
            threading.Thread(target=run, name=f"proxy.{run.__name__}", daemon=True).start()

    def send_late(self, frame: bytes, wait_s: float) -> bool:
        """Send a held request, though its client may have gone."""
        (_, _, self._late) = _HEADER.unpack_from(frame)
        self._broker.sendall(_SIZE.pack(len(frame)) + frame)
        return self._late_answered.wait(wait_s)

    def close(self) -> None:
        """Cut both ends."""
        for end in (self._client, self._broker):
            with contextlib.suppress(OSError):  # it has gone already
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _requests(self) -> None:
        for frame in _frames(self._client):
            key, _, correlation = _HEADER.unpack_from(frame)
            fault = self._proxy.take_fault() if key == END_TXN else Fault.NONE
            if fault is Fault.HOLD_REQUEST:
                self._proxy.hold(self, frame)
                continue  # the broker's end stays open for it, even if the client hangs up
            if key in self._proxy.slow:
                fault = Fault.DELAY_REPLY
            if fault is not Fault.NONE:
                self._replies[correlation] = fault
            if self._proxy.waits_for(key, frame):
                self._lets_go.add(correlation)
            if not _send(self._broker, frame):
                return

    def _answers(self) -> None:
        for frame in _frames(self._broker):
            (correlation,) = _SIZE.unpack_from(frame)
            if correlation == self._late:
                self._late_answered.set()
            if correlation in self._lets_go:
                self._lets_go.discard(correlation)
                self._proxy.let_go(self)
            fault = self._replies.pop(correlation, Fault.NONE)
            if fault is Fault.SWALLOW_REPLY:
                continue
            if fault is Fault.DELAY_REPLY:
                timer = threading.Timer(self._proxy.delay_s, _send, (self._client, frame))
                timer.daemon = True
                timer.start()
                continue
            _send(self._client, self._proxy.disguise(frame))


def _address(host: str, port: int) -> bytes:
    return host.encode() + struct.pack(">i", port)


def _client(frame: bytes) -> bytes:
    """Return a request's client id, which is its transactional id too."""
    (size,) = struct.unpack_from(">h", frame, _HEADER.size)
    start = _HEADER.size + 2
    return frame[start : start + max(0, size)]


def _frames(end: socket.socket):  # type: ignore[no-untyped-def] # an iterator of bytes; tests are not typed
    with end.makefile("rb") as stream:
        while True:
            try:
                head = stream.read(_SIZE.size)
                if len(head) < _SIZE.size:
                    return
                yield stream.read(_SIZE.unpack(head)[0])
            except (OSError, ValueError):
                return


def _send(end: socket.socket, frame: bytes) -> bool:
    try:
        end.sendall(_SIZE.pack(len(frame)) + frame)
    except OSError:
        return False
    return True
