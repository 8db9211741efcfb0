"""A way to a broker on which answers get lost, as where a machine or a network fails between doing and saying."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

PRODUCE = 0
"""Kafka's number for the request that writes records."""


class LosingRelay:
    """Passes Kafka's protocol on in both directions, until it is told to lose an answer.

    Attributes:
        port: where clients come in.
        lost: set when the answer to a produce request was lost, and all connections with it.
        refused: connections that were refused since then.
    """

    def __init__(self) -> None:
        self.lost = threading.Event()
        self.refused = 0
        self._target = 0
        self._is_to_lose = False
        self._is_open = True
        self._connections: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    def start(self, target: int) -> None:
        """Pass on to the broker's port."""
        self._target = target
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next_answer(self) -> None:
        """From the next produce request on: the broker gets it, its answer and all connections are lost."""
        self._is_to_lose = True

    def open(self) -> None:
        """Let clients in again."""
        self._is_open = True

    def close(self) -> None:
        """End everything."""
        self._server.close()
        self._cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._target)) if self._is_open else None
            except OSError:  # it does not listen at the moment
                broker = None
            if broker is None:
                self.refused += 1
                client.close()
            else:
                self._connect(client, broker)

    def _connect(self, client: socket.socket, broker: socket.socket) -> None:
        self._connections |= {client, broker}
        produced: set[int] = set()
        threading.Thread(target=self._pass_requests, args=(client, broker, produced), daemon=True).start()
        threading.Thread(target=self._pass_answers, args=(broker, client, produced), daemon=True).start()

    def _pass_requests(self, client: socket.socket, broker: socket.socket, produced: set[int]) -> None:
        while (frame := _frame(client)) is not None:
            key, _, correlation = struct.unpack_from(">hhi", frame, 4)
            if key == PRODUCE and self._is_to_lose:
                produced.add(correlation)
            if not _sent(broker, frame):
                break
        _end(broker)

    def _pass_answers(self, broker: socket.socket, client: socket.socket, produced: set[int]) -> None:
        while (frame := _frame(broker)) is not None:
            if struct.unpack_from(">i", frame, 4)[0] in produced:
                self._is_to_lose = self._is_open = False
                self._cut()
                self.lost.set()
                return
            if not _sent(client, frame):
                break
        _end(client)

    def _cut(self) -> None:
        for connection in list(self._connections):
            _end(connection)
        self._connections.clear()


def _frame(connection: socket.socket) -> bytes | None:
    """One message with its length in front; ``None`` where the connection has ended."""
    head = _read(connection, 4)
    body = head and _read(connection, struct.unpack(">i", head)[0])
    return head + body if head and body else None


def _read(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except OSError:
            return None
        if not more:
            return None
        data += more
    return data


def _sent(connection: socket.socket, frame: bytes) -> bool:
    try:
        connection.sendall(frame)
    except OSError:
        return False
    return True


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended
        connection.shutdown(socket.SHUT_RDWR)
