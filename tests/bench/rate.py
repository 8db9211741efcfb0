"""Records per second of a program, read from its output topic's high watermarks between 2 % and 100 %."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid

import orjson

from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
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


def measure(program: str, servers: str, source: str, records: int) -> float:
    """Run one program over ``source`` in a process of its own; its records per second."""
    target = f"bench-output-{uuid.uuid4().hex[:6]}"
    admin = ConfluentClients(servers).admin()
    admin.create([TopicSpec(target, PARTITIONS)])
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.programs", program, servers, source, target])
    try:
        started, at = _wait_for(admin, target, records // 50, process)
        ended, _ = _wait_for(admin, target, records, process)
        return (records - at) / (ended - started)
    finally:
        process.terminate()
        process.wait(30)
        admin.delete([target])
        admin.close()


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
