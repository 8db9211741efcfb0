"""Milliseconds that one stage adds to a record, at a steady rate."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass

from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec

RATE = 1_000
"""Records per second: far below what the stage can do, so that nothing queues."""


@dataclass(frozen=True)
class HopLatency:
    """Milliseconds from before ``produce`` of the input to after ``poll`` of the output."""

    p50: float
    p99: float
    records: int


def measure_hop(program: str, servers: str, seconds: float) -> HopLatency:
    """Send ``RATE`` records a second through one map for ``seconds`` seconds, after two to warm up."""
    clients = ConfluentClients(servers)
    source, target = (f"bench-{kind}-{uuid.uuid4().hex[:6]}" for kind in ("from", "to"))
    admin = clients.admin()
    admin.create([TopicSpec(source, 1), TopicSpec(target, 1)])
    gc.collect()
    gc.freeze()  # what is measured is the stage, not this process's collector
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.programs", program, servers, source, target])
    consumer = clients.consumer(None)
    consumer.assign({TopicPartition(target, 0): 0})
    producer = clients.producer(config={"linger.ms": 0})
    try:
        _exchange(producer, consumer, source, 200, warm=True)
        _exchange(producer, consumer, source, 2 * RATE, warm=False)
        times = _exchange(producer, consumer, source, int(RATE * seconds), warm=False)
    finally:
        process.terminate()
        process.wait(30)
        consumer.close()
        producer.close()
        admin.delete([source, target])
        admin.close()
    times.sort()
    return HopLatency(times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3, len(times))


def _exchange(producer, consumer, topic: str, count: int, *, warm: bool) -> list[float]:  # type: ignore[no-untyped-def]
    """Send ``count`` records at the rate and take what comes back; seconds of each."""
    times: list[float] = []
    begun, sent = time.perf_counter(), 0
    deadline = time.monotonic() + count / RATE + 60
    while len(times) < count:
        due = count if warm else min(count, int((time.perf_counter() - begun) * RATE))
        while sent < due:
            producer.produce(topic, b'{"at": %r}' % time.perf_counter())
            sent += 1
        producer.poll(0)
        now = time.perf_counter()
        for message in consumer.poll(100, 0.0005):
            now = time.perf_counter()
            times.append(now - float(message.value().split(b'"at":')[1].split(b",")[0].rstrip(b"}")))
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(times)} of {count} records came back")
    return times
