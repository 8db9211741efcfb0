"""Seconds from kill -9 of the worker that holds a partition to the next output of it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid

import orjson

from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
from sage.ports import Consumer, TopicSpec

PATIENCE = 120.0


def measure_takeover(servers: str, guarantee: str) -> float:
    """Two workers, one partition; the one that works is killed while records come."""
    clients = ConfluentClients(servers)
    source, target = (f"bench-{kind}-{uuid.uuid4().hex[:6]}" for kind in ("from", "to"))
    admin = clients.admin()
    admin.create([TopicSpec(source, 1), TopicSpec(target, 1)])
    program = "sage" if guarantee == "at_least_once" else "sage-exactly-once"
    command = [sys.executable, "-m", "tests.bench.programs", program, servers, source, target]
    workers = [subprocess.Popen(command)]
    consumer = clients.consumer(None)
    consumer.assign({TopicPartition(target, 0): 0})
    producer = clients.producer(config={"linger.ms": 0})
    seen: set[int] = set()
    try:
        sent = _until(lambda: len(seen) > 20, producer, consumer, source, seen, 0)
        workers.append(subprocess.Popen(command))  # joins while the first one works
        end = time.monotonic() + 5
        sent = _until(lambda: time.monotonic() > end, producer, consumer, source, seen, sent)
        workers[0].kill()
        killed, mark = time.monotonic(), sent
        _until(lambda: any(number >= mark for number in seen), producer, consumer, source, seen, sent)
        return time.monotonic() - killed
    finally:
        for process in workers:
            process.kill()
            process.wait(10)
        consumer.close()
        producer.close()
        admin.delete([source, target])
        admin.close()


def _until(done, producer, consumer: Consumer, topic: str, seen: set[int], sent: int) -> int:  # type: ignore[no-untyped-def]
    """Send 50 records a second and note what comes out, until ``done``; how many were sent."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        producer.produce(topic, b'{"at": %d}' % sent)
        producer.poll(0)
        sent += 1
        for message in consumer.poll(100, 0.02):
            seen.add(orjson.loads(message.value() or b"")["at"])
        if time.monotonic() > deadline:
            raise SystemExit(f"no output came back within {PATIENCE:.0f} s")
    return sent
