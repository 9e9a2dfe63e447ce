"""The faults of the matrix: deaths at named points, and what the world does to whole processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from tests.chaos import app, child
from tests.chaos.fleet import Seat
from tests.chaos.machine import Disk, Memory, Network
from tests.chaos.run import Run
from tests.integration.proxy import ADD_OFFSETS_TO_TXN, Fault, Proxy
from tests.starting import started
from tests.stopping import stop

PAIR = ("left", "right")
BROKER_FROZEN_S = 14.0
"""Longer than the nine seconds after which a controller takes a broker for dead."""
FROZEN_S = 7.5
"""Longer than the fleet's session."""
HELD_S_MAX = 12.0
"""How long an end of a transaction is held back at most."""
LOST_S = (0.5, 8.0)
"""How long the network loses packets."""
GRABS_MB, LIMIT_MB = 400, 350
"""How much memory a call takes that takes too much, and how much a process may have."""


class Quiet:
    """No fault: what others begin with, and the yardstick of throughput."""

    words = ""
    replays = True
    pause_s = 0.0
    own_broker = False
    open_max = 400

    def seats(self, run: Run) -> list[Seat]:
        """Two processes that each run everything."""
        return [Seat(instance=name) for name in PAIR]

    def settings(self, run: Run) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def tend(self, run: Run, share: float) -> None:
        """Do nothing."""

    def settled(self) -> bool:
        """At once."""
        return True

    def end(self, run: Run) -> None:
        """Nothing is left."""

    def met(self, run: Run) -> int:
        """Nothing happens, once."""
        return 1

    def violations(self, run: Run) -> list[str]:
        """Nothing but the rules has to hold."""
        return []

    def close(self) -> None:
        """Nothing was made."""


class Deaths(Quiet):
    """Each process is killed at a named point, again and again.

    Args:
        point: Which.
        each: How often each process dies.
    """

    def __init__(self, point: str, each: int = 2) -> None:
        self._point, self._each = point, each

    def settings(self, run: Run) -> Mapping[str, str]:
        """Arm the point; a reply before its note is met right after it."""
        point = "after-reply" if run.sabotage == "result_after_reply" else self._point
        return {child.POINT: point, child.DEATHS_MAX: str(self._each)}

    def met(self, run: Run) -> int:
        """Count deaths."""
        return run.fleet.died_at_points()


class Timed(Quiet):
    """Something that happens when certain shares of the tasks have ended.

    Args:
        times: How often.
    """

    def __init__(self, times: int) -> None:
        self._times = times
        self._due: list[float] = []
        self._happened = 0

    def tend(self, run: Run, share: float) -> None:
        """Have it happen if it is due."""
        if not self._due and not self._happened:
            self._due = sorted(run.dice.uniform(0.05, 0.8) for _ in range(self._times))
        if self._due and share >= self._due[0] and self.free():
            self._due.pop(0)
            self._happened += 1
            self.happen(run)

    def free(self) -> bool:
        """Whether the last one is over."""
        return True

    def happen(self, run: Run) -> None:
        """Do it."""

    def settled(self) -> bool:
        """Whether none is due any more."""
        return self._happened == self._times and self.free()

    def met(self, run: Run) -> int:
        """Count."""
        return self._happened


class Freezes(Timed):
    """A process stands still for longer than its session, then goes on where it was."""

    _frozen = ""
    _until_s = 0.0

    def tend(self, run: Run, share: float) -> None:
        """Thaw what was frozen for long enough."""
        if self._frozen and time.monotonic() >= self._until_s:
            run.fleet.thaw(self._frozen)
            run.died(self._frozen)
            self._frozen = ""
        super().tend(run, share)

    def free(self) -> bool:
        """Whether all of them move."""
        return not self._frozen

    def happen(self, run: Run) -> None:
        """Freeze one."""
        self._frozen = run.dice.choice(PAIR)
        run.fleet.freeze(self._frozen)
        self._until_s = time.monotonic() + FROZEN_S
        run.died(self._frozen)

    def end(self, run: Run) -> None:
        """Thaw."""
        if self._frozen:
            run.fleet.thaw(self._frozen)


class BrokerFreezes(Timed):
    """The broker stands still for longer than every session, its own included, then goes on."""

    pause_s = 60.0
    own_broker = True

    def happen(self, run: Run) -> None:
        """Freeze it, and thaw it."""
        assert run.broker is not None, "the matrix has brokers of its own"
        running = run.broker.status()
        assert running is not None, "it was started"
        stop(running.pid)
        run.died("broker")
        time.sleep(BROKER_FROZEN_S)
        os.kill(running.pid, signal.SIGCONT)


class BrokerDeaths(Timed):
    """The broker is killed as by a power failure, and comes back with its data."""

    pause_s = 60.0
    own_broker = True

    def happen(self, run: Run) -> None:
        """Kill it, and start it again."""
        assert run.broker is not None, "the matrix has brokers of its own"
        run.broker.kill()
        run.died("broker")
        started(run.broker)


class EndsMet(Timed):
    """Ends of transactions of one process meet a fault on their way, through a proxy.

    Args:
        times: How often.
        faults: Which, by the dice.
    """

    def __init__(self, times: int, *faults: Fault) -> None:
        super().__init__(times)
        self._faults = faults
        self._proxy: Proxy | None = None
        self._release_s = 0.0

    def seats(self, run: Run) -> list[Seat]:
        """Have one of two reach the cluster through the proxy."""
        left, right = PAIR
        self._proxy = Proxy(run.bootstrap, delay_s=5, release_at=ADD_OFFSETS_TO_TXN)
        own = {"HEADWATER_KAFKA__BOOTSTRAP": self._proxy.bootstrap}
        return [Seat(instance=left), Seat(instance=right, settings=own)]

    def settings(self, run: Run) -> Mapping[str, str]:
        """Have processes wait less long for answers, and clients send again before the broker aborts."""
        return {
            child.CALL_S: "4",
            "HEADWATER_KAFKA__EXTRA": '{"socket.timeout.ms": "2000"}',
        }

    def tend(self, run: Run, share: float) -> None:
        """Let go of what was held back for long, if its client made no other transaction since."""
        assert self._proxy is not None, "seats come first"
        now_s = time.monotonic()
        if not self._proxy.holds:
            self._release_s = now_s + HELD_S_MAX
        elif now_s >= self._release_s:
            self._proxy.release(0)
        super().tend(run, share)

    def free(self) -> bool:
        """Whether the last one was met, and nothing is held back."""
        assert self._proxy is not None, "seats come first"
        return self._proxy.met == self._happened and not self._proxy.holds

    def happen(self, run: Run) -> None:
        """Arm it."""
        assert self._proxy is not None, "seats come first"
        self._proxy.arm(run.dice.choice(self._faults))
        run.died(PAIR[1])

    def end(self, run: Run) -> None:
        """Let go of what is held back."""
        if self._proxy is not None:
            self._proxy.release(0)

    def close(self) -> None:
        """Cut every connection."""
        if self._proxy is not None:
            self._proxy.close()


STAY_S = 3.0
"""A guest joins, the group settles twice, and it takes turns for the rest of it."""
STORM_OPEN, STORM_PAY_MS = 30, 3_000
"""Few tasks at once, a third of which take long: there are some under way whenever partitions move."""


class Storm(Timed):
    """Members join and leave all the time.

    Args:
        times: How many of each.
    """

    open_max = STORM_OPEN
    _guest = ""
    _since_s = 0.0

    def settings(self, run: Run) -> Mapping[str, str]:
        """Have payments take long."""
        return {app.PAY_MS: str(STORM_PAY_MS)}

    def tend(self, run: Run, share: float) -> None:
        """Have whoever has come go again, once it has worked for a while on what it was given."""
        if self._guest and self._guest in run.fleet.running and self._works(run):
            self._since_s = self._since_s or time.monotonic()
            if time.monotonic() - self._since_s > STAY_S:
                run.fleet.retire(self._guest)
                self._guest, self._since_s = "", 0.0
        super().tend(run, share)

    def free(self) -> bool:
        """Whether no guest is coming."""
        return not self._guest

    def happen(self, run: Run) -> None:
        """Have one come."""
        self._guest = f"guest-{self._happened}"
        run.fleet.start(Seat(instance=self._guest, arguments=("--leave",)))

    def _works(self, run: Run) -> bool:
        path = run.directory / f"{self._guest}.log"
        return path.exists() and b" runs " in path.read_bytes()


class Upgrade(Timed):
    """One process after the other is replaced by one with a later version of the agent."""

    replays = False

    def __init__(self) -> None:
        super().__init__(len(PAIR))

    def happen(self, run: Run) -> None:
        """Replace the next."""
        instance = PAIR[self._happened - 1]
        run.fleet.roll(Seat(instance=instance, settings={app.VERSION: "2"}))


class Deploy(Timed):
    """Tools are deployed while long calls are under way, one process after the other.

    Args:
        pay_s: How long a payment takes.
    """

    HANDS = ("hands-1", "hands-2")

    def __init__(self, pay_s: float) -> None:
        super().__init__(2 * len(self.HANDS))
        # A process cuts calls off after four fifths of its drain.
        self._pay_s, self._drain_s = pay_s, round((pay_s + 6) / 0.8)
        self.pause_s = 2 * pay_s
        self.words = f"payments take {pay_s:g} s, leases are 3 s, sessions 6 s"

    def seats(self, run: Run) -> list[Seat]:
        """Two that call, one that decides."""
        hands = [Seat(instance=name, roles="models,tools") for name in self.HANDS]
        return [Seat(instance="left", roles="coordinator,agents"), *hands]

    def settings(self, run: Run) -> Mapping[str, str]:
        """Have payments take long, and processes wait for them."""
        return {
            app.PAY_MS: str(round(self._pay_s * 1000)),
            "HEADWATER_LOOPS__DRAIN_S": str(self._drain_s),
        }

    def happen(self, run: Run) -> None:
        """Deploy the next."""
        name = self.HANDS[self._happened % len(self.HANDS)]
        run.fleet.roll(run.fleet.seats[name])

    def free(self) -> bool:
        """Begin the next when the last may have ended."""
        return True

    def violations(self, run: Run) -> list[str]:
        """Nothing is in doubt: no payment had to be looked up, none was begun twice."""
        begun: dict[str, int] = {}
        wrong = []
        for deed in run.world.deeds():
            if deed.name == "verify":
                wrong.append(f"payment {deed.what} was in doubt")
            if deed.name == "pay" and deed.event == "begun":
                begun[deed.what] = begun.get(deed.what, 0) + 1
        return wrong + [f"payment {what} began {n} times" for what, n in begun.items() if n > 1]


class Losses(Timed):
    """One process is behind a network that loses what goes there, for a while and again."""

    def __init__(self, times: int) -> None:
        super().__init__(times)
        self._network: Network | None = None
        self._proxy: Proxy | None = None
        self._until_s = 0.0

    def seats(self, run: Run) -> list[Seat]:
        """Have one of two live in a network of its own."""
        left, right = PAIR
        self._network = Network()
        self._proxy = Proxy(run.bootstrap, delay_s=0, host=self._network.host)
        if not self._network.loses:
            self.words = "this kernel has no netem, so the cable is unplugged instead"
        own = {"HEADWATER_KAFKA__BOOTSTRAP": self._proxy.bootstrap}
        return [
            Seat(instance=left),
            Seat(instance=right, settings=own, network=self._network.name),
        ]

    def tend(self, run: Run, share: float) -> None:
        """Lose nothing again after a while."""
        if self._until_s and time.monotonic() >= self._until_s:
            self._restore()
        super().tend(run, share)

    def free(self) -> bool:
        """Whether nothing is lost now."""
        return not self._until_s

    def happen(self, run: Run) -> None:
        """Lose some or all, for less or for longer than a session."""
        assert self._network is not None, "seats come first"
        self._until_s = time.monotonic() + run.dice.uniform(*LOST_S)
        if self._network.loses and run.dice.random() < 0.5:
            self._network.lose(run.dice.randint(20, 80))
        else:
            self._network.unplug()
        run.died(PAIR[1])

    def end(self, run: Run) -> None:
        """Lose nothing."""
        self._restore()

    def close(self) -> None:
        """Take the network apart."""
        if self._proxy is not None:
            self._proxy.close()
        if self._network is not None:
            self._network.close()

    def _restore(self) -> None:
        self._until_s = 0.0
        if self._network is not None:
            self._network.plug()


class Kills(Timed):
    """Whole processes are killed at any instant."""

    def happen(self, run: Run) -> None:
        """Kill one."""
        run.fleet.kill(run.dice.choice(PAIR))


class FullDisk(Kills):
    """Local stores are on a disk that is full, and processes are killed, so that they are read.

    Args:
        times: How many kills.
        size_kb: What the disk holds.
    """

    def __init__(self, times: int, size_kb: int) -> None:
        super().__init__(times)
        self._size_kb = size_kb
        self._disk: Disk | None = None

    def settings(self, run: Run) -> Mapping[str, str]:
        """Mount it; the control's is large, because a store that is not used shows nothing."""
        self._disk = Disk(run.directory / "disk", 65_536 if run.sabotage else self._size_kb)
        return {
            "HEADWATER_STORE__PATH": str(self._disk.path),
            "HEADWATER_STORE__FOLLOW_S": "1",
        }

    def violations(self, run: Run) -> list[str]:
        """The disk was full, or the cell shows nothing."""
        said = b"".join(path.read_bytes() for path in run.directory.glob("*.log"))
        full = said.count(b"is thrown away, and not used")
        self.words = f"{full} stores were thrown away, as there was no space"
        return [] if full else ["no store met a full disk"]

    def close(self) -> None:
        """Unmount it."""
        if self._disk is not None:
            self._disk.close()


class LittleMemory(Quiet):
    """Each process has a limit of memory, and some calls take more, the first time."""

    def __init__(self) -> None:
        self._groups: list[Memory] = []
        self._grabbed = 0

    def seats(self, run: Run) -> list[Seat]:
        """Limit each."""
        self._groups = [Memory(LIMIT_MB) for _ in PAIR]
        return [
            Seat(instance=name, group=group.joins)
            for name, group in zip(PAIR, self._groups, strict=True)
        ]

    def settings(self, run: Run) -> Mapping[str, str]:
        """Have calls take more."""
        return {app.GRAB_MB: str(GRABS_MB)}

    def tend(self, run: Run, share: float) -> None:
        """Take note of the calls that took too much: their processes die of it."""
        while self._grabbed < self.met(run):
            self._grabbed += 1
            run.died("of its memory")

    def met(self, run: Run) -> int:
        """Count them: each is the kernel's to kill."""
        return sum(deed.name == "grab" for deed in run.world.deeds())

    def violations(self, run: Run) -> list[str]:
        """Each was killed, or the cell shows nothing."""
        said = "".join(path.read_text(errors="replace") for path in run.directory.glob("*.log"))
        killed = said.count(" died after ") + run.fleet.killed()
        self.words = f"{killed} processes were killed for their memory"
        return [] if killed else ["nobody was killed for its memory"]

    def close(self) -> None:
        """Remove the limits."""
        for group in self._groups:
            group.close()
