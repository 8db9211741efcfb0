"""Copies of state that others keep warm: who takes over after a kill has little to read, and all of the state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import ApacheBroker
from tests.support.programs import Program, sage
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

PARTITIONS = 4
SHARE = PARTITIONS // 2
BEFORE, AFTER = 2_000, 300
"""Records that are counted before the second worker comes, each with a key of its own; records that are at work when
the first one is killed, of keys that were seen before."""

TOPOLOGY = """
import os
import time
from collections.abc import Iterator
from typing import Any

from sage import Context, LocalEnvironment


def count(value: Any, ctx: Context) -> Iterator[Any]:
    if value["id"] >= {before}:
        time.sleep(0.02)  # so that it can be killed among these
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield {{"k": value["k"], "n": ctx.state["n"], "by": os.getpid()}}


env = LocalEnvironment("{name}", guarantee="exactly_once", defaults={{"partitions": {partitions}}})
env.from_topic("{source}").key_by("k", name="keyed").process(count, name="count", standby=1).to("{target}")
"""


def restored(worker: Program, changelog: str) -> dict[int, int]:
    """How many changes a worker read of each changelog partition before it took it over, as its log says."""
    found: Counter[int] = Counter()
    for changes, number in re.findall(rf"restored (\d+) changes of {re.escape(changelog)}-(\d+)", worker.output):
        found[int(number)] += int(changes)
    return dict(found)


def warm(worker: Program, changelog: str) -> set[int]:
    """Of which partitions of others a worker has a copy that is up to date."""
    return {int(n) for n in re.findall(rf"the copy of {re.escape(changelog)}-(\d+) is warm", worker.output)}


@pytest.mark.chaos
def test_a_killed_owners_state_is_taken_over_warm_and_counts_on_exactly(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source, target = unique("warm"), unique("in"), unique("out")
    changelog = f"{name}.count.changelog"
    clients = apache_kafka.clients()
    make_topic(clients, source, PARTITIONS)
    make_topic(clients, target, PARTITIONS)
    (tmp_path / "counting.py").write_text(
        TOPOLOGY.format(name=name, source=source, target=target, before=BEFORE, partitions=PARTITIONS), encoding="utf-8"
    )

    def worker(folder: str) -> tuple[str, ...]:
        address = apache_kafka.bootstrap_servers
        return ("topology", "run", "counting.py", "--bootstrap-servers", address, "--data-dir", folder, "--debug")

    def counted() -> int:
        return len(everything(clients, target))

    with sage(tmp_path, *worker("first")) as first:
        fill(clients, source, ({"id": n, "k": f"k{n}"} for n in range(BEFORE)), keyed_by="k")
        wait_until(lambda: counted() == BEFORE, timeout=60, what="all of it is counted")
        with sage(tmp_path, *worker("second")) as second:
            wait_until(lambda: len(warm(first, changelog)) == SHARE, timeout=60, what="the other one has its share")
            owned = set(range(PARTITIONS)) - warm(first, changelog)
            wait_until(lambda: warm(second, changelog) >= owned, timeout=60, what="what the first one has is copied")
            fill(clients, source, ({"id": BEFORE + n, "k": f"k{n}"} for n in range(AFTER)), keyed_by="k")
            wait_until(lambda: counted() > BEFORE, timeout=30, what="the first of them are counted")
            first.kill()
            assert counted() < BEFORE + AFTER, "killed too late to prove anything"
            wait_until(lambda: counted() == BEFORE + AFTER, timeout=60, what="the other worker has counted the rest")
            read = restored(second, changelog)
            killed, left = first.process.pid, second.process.pid

    found = values_of(everything(clients, target))
    assert Counter((value["k"], value["n"]) for value in found) == Counter(
        [*((f"k{n}", 1) for n in range(BEFORE)), *((f"k{n}", 2) for n in range(AFTER))]
    )
    assert {value["by"] for value in found} == {killed, left}
    assert set(restored(first, changelog)) == set(read) == set(range(PARTITIONS)), "each told what it had to read"
    assert sum(read[number] for number in owned) <= AFTER, f"of {sorted(owned)} it should have had all but the last"
