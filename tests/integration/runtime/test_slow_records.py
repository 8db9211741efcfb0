"""On Apache Kafka, exactly once: code that takes longer than a transaction may, behind records that have opened one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sage import LocalEnvironment
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, fill, make_topic, values_of

pytestmark = pytest.mark.integration

SLOW = 14.0
"""Seconds: more than a transaction's two here, and than it takes the broker to see that (ten)."""

RECORDS = 300


def test_a_record_that_outlasts_its_transaction_comes_out_once_and_is_run_at_most_twice(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, ran = unique("slow"), Counter[int]()

    def work(value: dict[str, int]) -> dict[str, int]:
        ran[value["n"]] += 1
        if value["n"] == RECORDS - 20:
            threading.Event().wait(SLOW)
        return value

    clients = apache_kafka.clients()
    make_topic(clients, f"{name}-in", 1)
    fill(clients, f"{name}-in", [{"n": n} for n in range(RECORDS)])
    env = LocalEnvironment(
        name, bootstrap_servers=apache_kafka.bootstrap_servers, data_dir=tmp_path, guarantee="exactly_once",
        kafka={"transaction.timeout.ms": 2_000},
    )  # fmt: skip
    with env:
        env.from_topic(f"{name}-in").map(work, name="work").to(f"{name}-out")
        report = env.run_once(120)

    assert report.complete
    assert [value["n"] for value in values_of(everything(clients, f"{name}-out"))] == list(range(RECORDS))
    assert ran[RECORDS - 20] == 2, "the broker was to end the transaction under it"
    assert max(ran.values()) == 2
