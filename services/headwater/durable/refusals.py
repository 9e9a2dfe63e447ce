"""What a durable function's loop refuses: whatever waits for the world, and driving the loop itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from headwater.durable import confine


class Refusing(asyncio.AbstractEventLoop):
    """An event loop without sockets, files, processes, signals and without an outside."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Refusing, *args: object, **kwargs: object) -> NoReturn:
        raise confine.refuse(f"use the event loop's {name}")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


for _name in (
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket", "connect_read_pipe",
    "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server",
    "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "remove_reader",
    "remove_signal_handler", "remove_writer", "sendfile", "sock_accept", "sock_connect", "sock_recv",
    "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile",
    "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(Refusing, _name, _refusal(_name))


def _misuse(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Refusing, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"loop.{name}: a durable function cannot run, stop or close its own loop"
        )

    return refuse


for _name in (
    "run_forever",
    "run_until_complete",
    "stop",
    "close",
    "set_default_executor",
    "set_task_factory",
):
    setattr(Refusing, _name, _misuse(_name))
