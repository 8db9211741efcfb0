"""``sage topics``: look into and write to Kafka topics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import (
    COUNT,
    DEFAULT_DATA_DIR,
    BootstrapServers,
    DataDir,
    KafkaConfig,
    Within,
    named,
)
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.ports import KafkaClients

Topic = Annotated[str, Parameter(help="The topic's name.", validator=named)]

_PARTITIONS, _REPLICAS = Within(1, 100_000), Within(1, 10_000)
"""The most that librdkafka asks brokers for."""


def list_topics(
    *,
    internal: Annotated[bool, Parameter(name=["--all", "-a"], help="Kafka's and SAGE's own topics too.")] = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the topics and how many records they hold, by their offsets: the marks of transactions count, and what
    was compacted away.
    """
    from sage.operations import topics

    found = topics.list_topics(clients_of(bootstrap_servers, data_dir, kafka_config), internal=internal)
    columns = (
        Column("name", "TOPIC"),
        Column("partitions", right=True),
        Column("records", right=True),
        Column("replication_factor", "REPLICAS", wide=True, right=True),
        Column("id", wide=True),
    )
    terminal().rows([asdict(one) for one in found], columns, empty="no topics")


def describe(
    topic: Topic,
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a topic's partitions, offsets, and the lag of every group that reads it."""
    from sage.operations import topics

    found = topics.describe(clients_of(bootstrap_servers, data_dir, kafka_config), topic)
    rows: list[dict[str, Any]] = [
        {"partition": one.partition, "start": one.start, "end": one.end, "records": one.records, "lag": dict(one.lag)}
        for one in found
    ]
    shown = terminal()
    if shown.is_structured:
        shown.data({"topic": topic, "partitions": rows})
        return
    columns = [Column(name, right=True) for name in ("partition", "start", "end", "records")]
    columns.append(Column("lag", show=lambda lag: ", ".join(f"{group} {count}" for group, count in lag.items()) or "-"))
    shown.rows(rows, columns)


def create(
    topic: Topic,
    /,
    *,
    partitions: Annotated[
        int, Parameter(name=["--partitions", "-p"], help="How many; fixed from then on.", validator=_PARTITIONS)
    ] = 1,
    replication_factor: Annotated[int, Parameter(help="Copies of each partition.", validator=_REPLICAS)] = 1,
    config: Annotated[
        list[str] | None, Parameter(name=["--config", "-c"], help="A topic property, name=value; may be repeated.")
    ] = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a topic. One that is there already stays as it is."""
    from sage.operations import topics

    made = topics.create(
        clients_of(bootstrap_servers, data_dir, kafka_config),
        topic,
        partitions=partitions,
        replication_factor=replication_factor,
        config=dict(_pair(text, "--config") for text in config or ()),
    )
    shown = terminal()
    if shown.is_structured:
        shown.data({"topic": topic, "created": made})
    elif made:
        shown.line(f"made {topic} with {partitions} partition{'s' if partitions > 1 else ''}")
    else:
        shown.note(f"{topic} was there already; nothing changed")


def tail(
    topic: Topic,
    /,
    *,
    count: Annotated[
        int, Parameter(name=["--lines", "-n"], help="How many of the last records.", validator=COUNT)
    ] = 10,
    from_beginning: Annotated[bool, Parameter(help="All records.")] = False,
    forever: Annotated[bool, Parameter(name=["--follow", "-f"], help="Wait for more; Ctrl-C ends it.")] = False,
    partition: Annotated[int | None, Parameter(help="This partition alone.", validator=COUNT)] = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print a topic's records: one a line, or as JSON lines with `-o json`. `-o wide` adds the headers."""
    from sage.operations import topics

    shown = terminal()
    messages = topics.tail(
        clients_of(bootstrap_servers, data_dir, kafka_config),
        topic,
        count=None if from_beginning else count,
        partition=partition,
        forever=forever,
    )
    for message in messages:
        plain = topics.as_dict(message)
        if shown.is_structured:
            shown.record(plain)
        else:
            shown.line(_line(plain, wide=shown.flags.output == "wide"))


def produce(
    topic: Topic,
    values: Annotated[
        tuple[str, ...], Parameter(help="The values; without any, each line of standard input is one.")
    ] = (),
    /,
    *,
    key: Annotated[str | None, Parameter(name=["--key", "-k"], help="The key of every record.")] = None,
    key_separator: Annotated[str | None, Parameter(help="What divides key and value inside a line.")] = None,
    header: Annotated[
        list[str] | None, Parameter(name=["--header", "-H"], help="A header, name=value; may be repeated.")
    ] = None,
    partition: Annotated[int | None, Parameter(help="The partition; else the key decides.", validator=COUNT)] = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write records, as they are, to a topic that exists; with `-o json` says where each went."""
    from sage.operations import topics

    lines = [value.encode() for value in values] if values else _input_lines()
    fixed = key.encode() if key is not None else None
    separator = key_separator.encode() if key_separator else None
    shown = terminal()
    done = topics.produce(
        clients_of(bootstrap_servers, data_dir, kafka_config),
        topic,
        (_keyed(line, fixed, separator) for line in lines),
        headers=[(name, value.encode()) for name, value in (_pair(text, "--header") for text in header or ())],
        partition=-1 if partition is None else partition,
    )
    if shown.is_structured:
        shown.data([asdict(one) for one in done])
    else:
        shown.line(f"{len(done)} record{'' if len(done) == 1 else 's'} to {topic}")


def clients_of(bootstrap_servers: str | None, data_dir: Path, kafka_config: Path | None) -> KafkaClients:
    """The Kafka clients that these options, the environment and ``up.json`` lead to."""
    from sage import app

    return app.brokers(bootstrap_servers, data_dir, kafka_config).clients()


def _input_lines() -> Iterator[bytes]:
    if sys.stdin.isatty():
        terminal().note("one record a line; Ctrl-D ends")
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n")


def _keyed(line: bytes, key: bytes | None, separator: bytes | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return key, line
    before, found, after = line.partition(separator)
    return (before, after) if found else (key, line)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise UsageError(f"{option} takes name=value; found {text!r}")
    return name, value


def _line(record: dict[str, Any], *, wide: bool) -> str:
    import json

    when = record["timestamp"]
    time = datetime.fromtimestamp(when / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3] if when is not None else "-"
    value = record["value"] if isinstance(record["value"], str) else json.dumps(record["value"], ensure_ascii=False)
    place = f"{record['partition']}:{record['offset']}"
    line = f"{place}  {time}  {record['key'] if record['key'] is not None else '-'}  {value}"
    if wide:
        line += "  " + " ".join(f"{name}={value}" for name, value in record["headers"])
    return line
