"""Edges are plain topics: Apache Kafka's own console tools read and write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from sage import LocalEnvironment
from sage.model.keys import partition_for
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, make_topic, values_of


def test_console_tools_read_an_edge_and_what_they_write_runs_through(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source = unique("any"), unique("in")
    clients, cluster = apache_kafka.clients(), apache_kafka.cluster
    make_topic(clients, source, 3)
    written = "".join(f'key-{number}\t{{"n": {number}}}\n' for number in range(12))
    cluster.console(
        "kafka-console-producer", "--topic", source,
        "--property", "parse.key=true", stdin=written,
    )  # fmt: skip
    with LocalEnvironment(
        name, bootstrap_servers=apache_kafka.bootstrap_servers, data_dir=tmp_path, defaults={"partitions": 3}
    ) as env:
        doubled = env.from_topic(source).map(lambda value: {"n": value["n"] * 2}, name="double", concurrency=1)
        seen = doubled.collect()
        assert env.run_once(60).complete

    read = cluster.console(
        "kafka-console-consumer",
        "--topic", f"{name}.double", "--from-beginning",
        "--max-messages", "12", "--timeout-ms", "20000",
        "--property", "print.key=true", "--property", "print.headers=true", "--property", "print.partition=true",
    )  # fmt: skip
    lines = [line.split("\t") for line in read.stdout.splitlines() if "key-" in line]
    assert sorted(value["n"] for value in seen) == [number * 2 for number in range(12)]
    assert len(lines) == 12
    for partition, headers, key, value in lines:
        number = int(key.removeprefix("key-"))
        assert orjson.loads(value) == {"n": number * 2}
        assert partition == f"Partition:{partition_for(key.encode(), 3)}"
        assert "traceparent:00-" in headers
        assert "sage.id:" in headers
    assert len(values_of(everything(clients, f"{name}.double"))) == 12
