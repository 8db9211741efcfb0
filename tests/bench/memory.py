"""Whether a worker's memory stays where it is while records pass."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import uuid
from typing import NamedTuple

import orjson

from sage.kafka.clients import ConfluentClients
from sage.operations.measuring.process_times import resident_bytes
from sage.ports import TopicSpec

RATE = 5_000
"""Records per second."""

KEYS = 1_000
"""Different keys: all of them are seen long before the first look at the memory."""

RETENTION = {"retention.bytes": str(64 * 1024 * 1024), "segment.bytes": str(16 * 1024 * 1024)}
"""So that a long run does not fill the disk."""


class Memory(NamedTuple):
    """Megabytes that a program held: the medians of the second and the last quarter of its time, and the most.

    The first quarter is left out: caches and queues fill. Medians, as what librdkafka has fetched ahead comes and goes.
    """

    settled: float
    last: float
    most: float
    records: int
    samples: tuple[float, ...]
    """About forty, evenly spaced."""

    @property
    def growth(self) -> float:
        """The last quarter beside the second."""
        return self.last / self.settled


def measure_memory(program: str, servers: str, minutes: float) -> Memory:
    """Send ``RATE`` records a second through ``program`` and look at its memory each second."""
    clients = ConfluentClients(servers)
    source, target = (f"bench-{kind}-{uuid.uuid4().hex[:6]}" for kind in ("from", "to"))
    admin = clients.admin()
    admin.create([TopicSpec(source, 4, config=RETENTION), TopicSpec(target, 4, config=RETENTION)])
    producer = clients.producer(config={"linger.ms": 20})
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.programs", program, servers, source, target])
    samples: list[int] = []
    begun, sent = time.monotonic(), 0
    try:
        while (passed := time.monotonic() - begun) < minutes * 60:
            for number in range(sent, int(passed * RATE)):
                value = orjson.dumps({"id": number, "text": "x" * 60})
                producer.produce(source, value, b"%d" % (number % KEYS))
            sent = int(passed * RATE)
            producer.poll(0.02)
            if len(samples) < int(passed):
                if process.poll() is not None:
                    raise SystemExit(f"{program} ended with {process.returncode}")
                samples.append(resident_bytes(process.pid))
    finally:
        process.terminate()
        process.wait(30)
        producer.close()
        admin.delete([source, target])
        admin.close()
    held = [sample / 2**20 for sample in samples]
    quarter = len(held) // 4
    settled, last = statistics.median(held[quarter : 2 * quarter]), statistics.median(held[-quarter:])
    return Memory(settled, last, max(held[quarter:]), sent, tuple(held[:: max(1, len(held) // 40)]))
