"""The programs that are compared, each run as a process of its own: ``python -m tests.bench.programs NAME ...``.

Every one reads JSON records of about 100 bytes with a ``traceparent`` header, decodes, adds a field, encodes,
forwards the headers, and commits each second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import orjson

CONCURRENCY = 1_000
"""Calls at work at once in the asynchronous programs."""

CALL = 0.1
"""Seconds that one of them takes."""


def bare_json(servers: str, source: str, target: str) -> None:
    """The fastest loop that confluent-kafka allows with the work done: what SAGE is measured against."""
    consumer, producer, failures = _bare_clients(servers, source, target)
    committed = time.monotonic()
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        for message in [first, *consumer.consume(999, 0)]:
            value = orjson.loads(message.value())
            value["seen"] = True
            data = orjson.dumps(value)
            headers = message.headers()
            while True:
                try:
                    producer.produce(target, data, message.key(), headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
        if time.monotonic() - committed > 1:
            _commit(consumer, producer, failures)
            committed = time.monotonic()


def bare_async(servers: str, source: str, target: str) -> None:
    """A task per record and nothing else: what the event loop allows. No order, no window, no retry."""
    asyncio.run(_bare_async(servers, source, target))


async def _bare_async(servers: str, source: str, target: str) -> None:
    consumer, producer, failures = _bare_clients(servers, source, target)
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(CONCURRENCY)
    committed = time.monotonic()
    tasks: set[asyncio.Task[None]] = set()

    async def one(message: Any) -> None:
        value = await _call(orjson.loads(message.value()))
        producer.produce(target, orjson.dumps(value), message.key(), headers=message.headers())
        free.release()

    while True:
        for message in await loop.run_in_executor(None, consumer.consume, CONCURRENCY, 0.01):
            await free.acquire()
            task = loop.create_task(one(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        producer.poll(0)
        if time.monotonic() - committed > 1:
            await loop.run_in_executor(None, _commit, consumer, producer, failures)
            committed = time.monotonic()


def _bare_clients(servers: str, source: str, target: str) -> tuple[Any, Any, list[object]]:
    failures: list[object] = []

    def delivered(error: object, message: object) -> None:
        del message
        if error is not None:
            failures.append(error)

    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"bare-{target}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
            "isolation.level": "read_committed",
        }
    )
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "linger.ms": 2,
            "partitioner": "murmur2_random",
            "on_delivery": delivered,
        }
    )
    consumer.subscribe([source])
    return consumer, producer, failures


def _commit(consumer: Any, producer: Any, failures: list[object]) -> None:
    if producer.flush(10) or failures:
        raise SystemExit(f"records were not taken: {failures[:1]}")
    consumer.commit(asynchronous=False)


def sage_map(servers: str, source: str, target: str) -> None:
    """One map, as a user writes it."""
    _sage(servers, source, target, maps=1)


def sage_three_maps(servers: str, source: str, target: str) -> None:
    """Three maps, which the planner fuses."""
    _sage(servers, source, target, maps=3)


def sage_exactly_once(servers: str, source: str, target: str) -> None:
    """One map, with outputs and offsets in transactions."""
    _sage(servers, source, target, maps=1, guarantee="exactly_once")


def sage_processes(servers: str, source: str, target: str) -> None:
    """One map in two worker processes, as ``sage topology run --processes`` starts them."""
    os.environ |= {"BENCH_SOURCE": source, "BENCH_TARGET": target}
    topology = f"{Path(__file__).with_name('in_processes.py')}:environment"
    sage = str(Path(sys.executable).with_name("sage"))
    folder = tempfile.mkdtemp(prefix="sage-bench-")
    os.execv(
        sage,
        [sage, "topology", "run", topology, "--processes", "2", "--bootstrap-servers", servers, "--data-dir", folder],
    )


def sage_count(servers: str, source: str, target: str) -> None:
    """A count per key, in RocksDB with a changelog; the source's keys are taken as they are."""
    _sage_count(servers, source, target, "at_least_once")


def sage_count_exactly_once(servers: str, source: str, target: str) -> None:
    """The same, with the state's changes in the transactions."""
    _sage_count(servers, source, target, "exactly_once")


def _sage_count(servers: str, source: str, target: str, guarantee: Any) -> None:
    from sage import LocalEnvironment
    from sage.graph.stream import KeyedStream

    env = LocalEnvironment(
        f"bench-{target}",
        bootstrap_servers=servers,
        guarantee=guarantee,
        data_dir=tempfile.mkdtemp(prefix="sage-bench-"),
    )
    stream: Any = env.from_topic(source)
    KeyedStream(stream._builder, stream._input).process(_count, name="count").to(target)
    env.run_streaming()


def sage_async(servers: str, source: str, target: str) -> None:
    """Calls of 100 ms, a thousand at a time, the order of keys kept."""
    from sage import LocalEnvironment

    env = LocalEnvironment(f"bench-{target}", bootstrap_servers=servers)
    env.from_topic(source).map(_call, name="call", concurrency=CONCURRENCY).to(target)
    env.run_streaming()


async def _call(value: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(CALL)
    return value


def _count(value: dict[str, Any], ctx: Any) -> Any:
    state = ctx.state
    state["n"] = state.get("n", 0) + 1
    yield {"id": value["id"], "n": state["n"]}


def _sage(servers: str, source: str, target: str, *, maps: int, guarantee: Any = "at_least_once") -> None:
    from sage import LocalEnvironment

    env = LocalEnvironment(f"bench-{target}", bootstrap_servers=servers, guarantee=guarantee)
    stream = env.from_topic(source)
    for _ in range(maps):
        stream = stream.map(add_field)
    stream.to(target)
    env.run_streaming()


def add_field(value: dict[str, object]) -> dict[str, object]:
    """The work of the maps."""
    value["seen"] = True
    return value


PROGRAMS = {
    "bare": bare_json,
    "bare-async": bare_async,
    "sage": sage_map,
    "sage-three-maps": sage_three_maps,
    "sage-exactly-once": sage_exactly_once,
    "sage-two-processes": sage_processes,
    "sage-count": sage_count,
    "sage-count-exactly-once": sage_count_exactly_once,
    "sage-async": sage_async,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
