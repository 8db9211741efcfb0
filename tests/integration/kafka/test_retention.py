"""Edges of a running topology are trimmed behind their slowest reader, by the brokers themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage import LocalEnvironment
from sage.graph.builder import StreamBuilder
from sage.graph.topology import TopicSettings
from sage.model.partition import TopicPartition
from tests.support.brokers import Broker
from tests.support.records import everything, fill, make_topic
from tests.support.waiting import wait_until

RECORDS = 40


async def take(value: Any) -> Any:
    return value


def test_an_edge_loses_what_all_have_read_and_keeps_what_one_has_not(
    broker: Broker, unique: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage.runtime.runs.housekeeping.LOOK_EVERY", 0.2)
    monkeypatch.setattr("sage.runtime.runs.housekeeping.TRIM_EVERY", 0.2)
    name, clients = unique("kept"), broker.clients()
    make_topic(clients, f"{name}-in")
    free = threading.Event()

    def slow(value: Any) -> Any:
        if value["n"] >= RECORDS // 2:
            free.wait()
        return value

    def starts(*topics: str) -> list[int]:
        admin = clients.admin()
        try:
            return list(admin.start_offsets([TopicPartition(topic, 0) for topic in topics]).values())
        finally:
            admin.close()

    builder = StreamBuilder(name, topics=TopicSettings(retention=0.1))
    first = builder.from_topic(f"{name}-in").map(take, name="first")
    first.map(take, name="quick").to(f"{name}-quick")
    first.map(slow, name="slow", blocking=True, concurrency=4).to(f"{name}-slow")
    edge = f"{name}.first"
    with LocalEnvironment.of(builder.build(), bootstrap_servers=broker.bootstrap_servers, data_dir=tmp_path) as env:
        env.run_streaming(block=False)
        fill(clients, f"{name}-in", [{"n": number} for number in range(RECORDS)])
        wait_until(lambda: len(everything(clients, f"{name}-quick")) == RECORDS, timeout=60, what="quick has all")
        wait_until(lambda: starts(edge) == [RECORDS // 2], timeout=60, what="trimmed as far as the slow one has come")
        free.set()
        wait_until(lambda: starts(edge) == [RECORDS], timeout=60, what="trimmed to the end")
        assert starts(f"{name}-in", f"{name}-slow") == [0, 0], "topics of others are not touched"
        assert len(everything(clients, f"{name}-slow")) == RECORDS
