"""What workers did in a run, added up from what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from sage.cluster.status import StageStatus, TopologyStatus, WorkerStatus
from sage.cluster.worker_counts import WorkerCounts
from tests.unit.cluster.test_cluster_view import TOPICS, Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.view.close()


def say(cluster: Cluster, worker: str, read: int, *, since: int = 1, topology: str = "qa") -> None:
    stage = StageStatus("s", 1, "running", since=since, steps={"s": (read, 0, 0, 0, 0), "t": (0, read, 0, 1, 2)})
    word = TopologyStatus(worker, topology, (stage,))
    cluster.say(word.key, word.encode())


def test_what_was_said_before_does_not_count_and_other_topologies_neither(cluster: Cluster) -> None:
    say(cluster, "a", 7)
    counts = WorkerCounts(cluster.clients, TOPICS, "qa")
    say(cluster, "a", 10)
    say(cluster, "b", 5)
    say(cluster, "b", 100, topology="other")
    counts._view.read_to_end()
    assert counts.numbers() == {"s": (8, 0, 0, 0, 0), "t": (0, 8, 0, 1, 2)}
    counts.close()


def test_an_actor_that_is_started_anew_counts_with_what_it_did_before(cluster: Cluster) -> None:
    say(cluster, "a", 7, since=1)
    counts = WorkerCounts(cluster.clients, TOPICS, "qa")
    say(cluster, "a", 9, since=1)
    say(cluster, "a", 0, since=0)  # it is down
    say(cluster, "a", 4, since=2)
    cluster.say(TopologyStatus("a", "qa").key, None)
    counts._view.read_to_end()
    assert counts.numbers()["s"] == (2 + 4, 0, 0, 0, 0)
    counts.close()


def test_a_worker_that_lives_and_says_nothing_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage.cluster.worker_counts.SETTLED", 0.05)
    monkeypatch.setattr("sage.cluster.worker_counts.DEAD_AFTER", 2.0)
    for worker in ("a", "b"):
        cluster.say(WorkerStatus(worker).key, WorkerStatus(worker).encode())
        say(cluster, worker, 1)
    counts = WorkerCounts(cluster.clients, TOPICS, "qa")
    poll, beats = counts._view.poll, itertools.count()

    def poll_while_a_beats(timeout: float) -> frozenset[str]:
        cluster.say(WorkerStatus("a").key, WorkerStatus("a", seen=next(beats)).encode())
        return poll(timeout)

    monkeypatch.setattr(counts._view, "poll", poll_while_a_beats)
    assert counts.wait() == ("b",)
    counts.close()
