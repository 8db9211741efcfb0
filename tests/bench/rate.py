"""Records per second of a program, and its processor time, between 2 % and 100 % of the records.

Both are read from outside: the output topic's high watermarks, and the kernel's account of the process.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import orjson

from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
from sage.operations.measuring.process_times import cpu_seconds
from sage.ports import Admin, TopicSpec

PARTITIONS = 4
PATIENCE = 180.0
"""Seconds a program may take; a run that takes longer is an error, not a slow figure."""


def load_input(servers: str, records: int) -> str:
    """A topic with ``records`` JSON records of about 100 bytes; returns its name."""
    clients = ConfluentClients(servers)
    topic = f"bench-input-{uuid.uuid4().hex[:6]}"
    admin = clients.admin()
    admin.create([TopicSpec(topic, PARTITIONS)])
    admin.close()
    producer = clients.producer(config={"linger.ms": 50})
    trace = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
    for number in range(records):
        value = orjson.dumps({"id": number, "name": f"user-{number % 1000:04}", "text": "x" * 40, "price": number / 7})
        while True:
            try:
                producer.produce(topic, value, str(number % 10_000).encode(), trace)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise SystemExit("the input topic could not be filled")
    producer.close()
    return topic


class Rate(NamedTuple):
    """What one run of a program gave."""

    per_second: float
    cpu_us: float
    """Microseconds of processor time per record, all threads and processes of the program together."""


def measure(program: str, servers: str, source: str, records: int) -> Rate:
    """Run one program over ``source`` in a process of its own."""
    target = f"bench-output-{uuid.uuid4().hex[:6]}"
    admin = ConfluentClients(servers).admin()
    admin.create([TopicSpec(target, PARTITIONS)])
    process = subprocess.Popen(
        [*_command(program), servers, source, target], stdout=subprocess.DEVNULL, stderr=_errors(program)
    )
    try:
        started, at = _wait_for(admin, target, records // 50, process)
        before = cpu_seconds(process.pid)
        ended, there = _wait_for(admin, target, records, process)
        spent = cpu_seconds(process.pid) - before
        return Rate((there - at) / (ended - started), spent / (there - at) * 1e6)
    finally:
        _end(process)
        admin.delete([target])
        admin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


PEERS = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"
"""The interpreter of the other libraries; ``make bench`` makes it where it can."""

PEER_PROGRAMS = frozenset({"quix", "quix-count", "faust"})


def _command(program: str) -> list[str]:
    if program in PEER_PROGRAMS:
        return [str(PEERS), str(Path(__file__).with_name("peers.py")), program]
    return [sys.executable, "-m", "tests.bench.programs", program]


def _errors(program: str) -> int | None:
    """What others say when they are ended, and what several processes say of their coming and going, is left out."""
    return subprocess.DEVNULL if program in PEER_PROGRAMS or program == "sage-two-processes" else None


def _wait_for(admin: Admin, topic: str, wanted: int, process: subprocess.Popen[bytes]) -> tuple[float, int]:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        there = sum(admin.end_offsets(partitions, committed=False).values())
        if there >= wanted:
            return time.monotonic(), there
        if process.poll() is not None:
            raise SystemExit(f"the program ended with {process.returncode} at {there} of {wanted} records")
        time.sleep(0.01)
    raise SystemExit(f"{wanted} records did not arrive within {PATIENCE:.0f} s")
