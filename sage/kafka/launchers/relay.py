"""A relay in front of the embedded broker that gives it what it lacks: fetches that wait, and sessions that end.

Kafka's fetch waits on the broker for ``max.wait.ms`` when there is nothing new. The embedded broker answers at
once, so every idle consumer asks some 80,000 times a second and takes a core of its own. Here a fetch that got nothing
waits until its topics are written to, which all passes here as well (``fetch_waits.py``). And a member of a group that
is not heard of for its session time-out is taken out of the group (``sessions.py``). Everything else passes as it is,
but for the broker's own port in its answers, which becomes the relay's.

Run as ``python -m sage.kafka.launchers.relay --port P --data-dir D PROGRAM``: it starts the broker, ends with it,
and the broker ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sage.kafka.launchers.fetch_waits import FETCH, Asked, FetchWaits, written_topic
from sage.kafka.launchers.sessions import Connection, Sessions
from sage.kafka.leave_group import leave_group

HOST = "127.0.0.1"

WAIT = 0.1
"""Seconds that a repeated fetch is held back at most: as long as Kafka would keep one of ours."""

UNANSWERED = 1024
"""Produce requests of a connection that are kept in mind; those that want no answer (``acks=0``) never get one."""

SESSION_CHECK = 0.5
"""Seconds between two looks for members whose sessions are over."""

_READ = 1 << 18
_STOP_TIMEOUT = 120.0
"""Seconds that the broker may take to write its last snapshot; `sage down` decides how long it waits for us."""


class Relay:
    """Connects each client to the broker and passes frames both ways."""

    def __init__(self, port: int, broker_port: int) -> None:
        self._port = port
        self._broker_port = broker_port
        host = HOST.encode()
        self._theirs = host + broker_port.to_bytes(4, "big")
        self._ours = host + port.to_bytes(4, "big")
        self._waits = FetchWaits()
        self._sessions = Sessions()
        self._clients: dict[Connection, asyncio.StreamWriter] = {}

    async def serve(self) -> asyncio.Server:
        """Listen; raises OSError where the port is taken."""
        return await asyncio.start_server(self._client, HOST, self._port, limit=_READ)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._broker_port, limit=_READ)
        except OSError:
            writer.close()
            return
        for each in (writer, broker_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writes: dict[bytes, bytes] = {}
        connection = self._sessions.connected()
        self._clients[connection] = writer
        pumps = [
            asyncio.create_task(self._requests(reader, broker_writer, writes, connection)),
            asyncio.create_task(self._answers(broker_reader, writer, writes, connection)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sessions.disconnected(connection)
            del self._clients[connection]
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, broker_writer):
                each.close()

    async def tend_groups(self) -> None:
        """Take members that are not heard of any more out of their groups, and have those ask again whom the broker
        forgot, for ever."""
        broker = f"{HOST}:{self._broker_port}"
        while True:
            await asyncio.sleep(SESSION_CHECK)
            for member in self._sessions.passed(SESSION_CHECK):
                await asyncio.to_thread(leave_group, broker, member.group, member.id)
            for connection in self._sessions.forgotten():
                self._clients[connection].close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writes: dict[bytes, bytes],
        connection: Connection,
    ) -> None:
        """Pass requests on; a fetch that got nothing before is held back.

        Args:
            writes: requests that wait for their answer, by correlation id: the topic that each writes to.
        """
        asked = Asked()
        while True:
            frame = await _frame(reader)
            if int.from_bytes(frame[4:6], "big") == FETCH:
                if (since := asked.before(frame)) is not None:
                    await self._waits.wait(frame, since, WAIT)
                asked.sent(frame, self._waits.news)
            elif (topic := written_topic(frame)) is not None:
                if len(writes) >= UNANSWERED:
                    del writes[next(iter(writes))]
                writes[frame[8:12]] = topic
            else:
                self._sessions.asked(connection, frame)
            writer.write(frame)
            await writer.drain()

    async def _answers(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writes: dict[bytes, bytes],
        connection: Connection,
    ) -> None:
        """Pass answers on; where they name the broker's address they name ours."""
        while True:
            frame = await _frame(reader)
            if len(frame) < _READ and self._theirs in frame:
                frame = frame.replace(self._theirs, self._ours)
            if (topic := writes.pop(frame[4:8], None)) is not None:
                self._waits.written(topic)
            self._sessions.answered(connection, frame)
            writer.write(frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One frame with its length; raises IncompleteReadError where the connection ends."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length, "big"))


def start_broker(program: str, data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the broker on a port of its own; it dies with this process, also by kill -9."""
    parent = os.getpid()

    def die_with_parent() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    arguments = [program, "start", "--only", "kafka", "--data-dir", str(data_dir), "--host", HOST]
    return subprocess.Popen([*arguments, "--kafka-port", str(port)], preexec_fn=die_with_parent)  # noqa: PLW1509


async def run(port: int, data_dir: Path, program: str) -> int:
    """Relay until the broker ends or SIGTERM comes; the broker's exit code, 0 after SIGTERM."""
    broker_port = _free_port()
    relay = Relay(port, broker_port)
    server = await relay.serve()
    broker = start_broker(program, data_dir, broker_port)
    ends = asyncio.create_task(relay.tend_groups())
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    while not stopping.is_set() and broker.poll() is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), 0.1)
    server.close()
    ends.cancel()
    if broker.poll() is not None:
        return broker.returncode or 1
    broker.terminate()  # the broker saves everything at SIGTERM
    try:
        await asyncio.to_thread(broker.wait, _STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        broker.kill()
        return 1
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="The embedded broker, behind its relay.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("program")
    options = parser.parse_args()
    try:
        return asyncio.run(run(options.port, options.data_dir, options.program))
    except OSError as error:
        print(f"the embedded broker did not start: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
