"""Which port a service listens on: the one asked for, else the usual one, else any that is free."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from sage.errors import PortTaken

HOST = "127.0.0.1"
"""Services are for this machine only: they have no passwords."""

PREFERRED = {"broker": 19092, "memory": 19530, "model": 18080}
"""Where each service listens when nobody says otherwise and the port is free."""


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections of an earlier server in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(host: str, port: int, *, timeout: float = 1.0) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False


IsFree = Callable[[int], bool]
"""Whether a port can be had; ``Reservations.take`` has it for us then."""


def choose(
    name: str, *, asked: int | None, earlier: int | None = None, avoid: Sequence[int] = (), is_free: IsFree = is_free
) -> int:
    """A port for the service ``name``.

    ``earlier`` is the port it had before: running clients look for it there. ``avoid`` are ports promised to
    others of the same start.

    Raises:
        PortTaken: ``asked`` is in use.
    """
    if asked is not None:
        if asked in avoid or not is_free(asked):
            raise PortTaken(
                f"port {asked}, asked for as the {name}'s, is in use by another program; "
                f"leave out --{name}-port to take a free one, or name another"
            )
        return asked
    for port in (earlier, PREFERRED.get(name)):
        if port is not None and port not in avoid and is_free(port):
            return port
    return _any_free(avoid, is_free)


def _any_free(avoid: Sequence[int], is_free: IsFree) -> int:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in avoid and is_free(port):
            return port
