"""The programs that are compared, each run as a process of its own: ``python -m tests.bench.programs NAME ...``.

Every one reads JSON records of about 100 bytes with a ``traceparent`` header, decodes, adds a field, encodes,
forwards the headers, and commits each second.
"""

from __future__ import annotations

import sys
import time

import confluent_kafka
import orjson


def bare_json(servers: str, source: str, target: str) -> None:
    """The fastest loop that confluent-kafka allows with the work done: what SAGE is measured against."""
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
    failures: list[object] = []

    def delivered(error: object, message: object) -> None:
        del message
        if error is not None:
            failures.append(error)

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
            if producer.flush(10) or failures:
                raise SystemExit(f"records were not taken: {failures[:1]}")
            consumer.commit(asynchronous=False)
            committed = time.monotonic()


def sage_map(servers: str, source: str, target: str) -> None:
    """One map, as a user writes it."""
    _sage(servers, source, target, maps=1)


def sage_three_maps(servers: str, source: str, target: str) -> None:
    """Three maps, which the planner fuses."""
    _sage(servers, source, target, maps=3)


def _sage(servers: str, source: str, target: str, *, maps: int) -> None:
    from sage import LocalEnvironment

    env = LocalEnvironment(f"bench-{target}", bootstrap_servers=servers)
    stream = env.from_topic(source)
    for _ in range(maps):
        stream = stream.map(_add_field)
    stream.to(target)
    env.run_streaming()


def _add_field(value: dict[str, object]) -> dict[str, object]:
    value["seen"] = True
    return value


PROGRAMS = {"bare": bare_json, "sage": sage_map, "sage-three-maps": sage_three_maps}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
