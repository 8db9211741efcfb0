"""Who lives is told by the broker's time, and by nobody's clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.names import ControlTopics
from sage.cluster.status import DEAD_AFTER, TopologyStatus, WorkerStatus
from sage.errors import NotFound
from sage.testing.broker import InMemoryClients

TOPICS = ControlTopics("test")


class Cluster:
    """A broker whose clock a test turns, and a view."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.clients = InMemoryClients(now_ms=lambda: self.now)
        ensure_control_topics(self.clients, TOPICS)
        self._producer = self.clients.producer()
        self.view = ClusterView(self.clients, TOPICS)

    def beat(self, *workers: str, after: float = 0.0) -> None:
        self.now += int(after * 1000)
        for worker in workers:
            self.say(WorkerStatus(worker).key, WorkerStatus(worker).encode())

    def say(self, key: bytes, value: bytes | None) -> None:
        self._producer.produce(TOPICS.status, value, key, partition=0)
        self._producer.flush(5)

    def live(self) -> set[str]:
        self.view.read_to_end()
        return set(self.view.live)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.view.close()


def test_a_worker_is_dead_when_others_have_been_heard_of_for_long_enough(cluster: Cluster) -> None:
    cluster.beat("a", "b")
    assert cluster.live() == {"a", "b"}
    for _ in range(5):
        cluster.beat("a", after=2.0)
    assert cluster.live() == {"a", "b"}
    cluster.beat("a", after=2.0)
    assert cluster.live() == {"a"}
    assert cluster.view.workers["b"].age > DEAD_AFTER
    cluster.beat("b")
    assert cluster.live() == {"a", "b"}


def test_nobody_looks_dead_when_the_brokers_come_back(cluster: Cluster) -> None:
    cluster.beat("a", "b", "c")
    assert cluster.live() == {"a", "b", "c"}
    cluster.beat("a", after=60.0)  # the brokers were away for a minute; b and c speak a moment later
    assert cluster.live() == {"a", "b", "c"}


def test_a_newcomer_takes_the_past_as_it_stands(cluster: Cluster) -> None:
    cluster.beat("long-gone")
    cluster.beat("a", after=3600.0)
    assert cluster.live() == {"a"}


def test_words_on_topologies_come_and_go(cluster: Cluster) -> None:
    cluster.beat("a")
    word = TopologyStatus("a", "qa")
    cluster.say(word.key, word.encode())
    cluster.live()
    assert cluster.view.live["a"].topologies == {"qa": word}
    cluster.say(word.key, None)
    cluster.live()
    assert cluster.view.live["a"].topologies == {}


def word(cluster: Cluster, worker: str, settled: float) -> None:
    cluster.beat(worker)
    said = TopologyStatus(worker, "qa", settled=settled)
    cluster.say(said.key, said.encode())


def settled(cluster: Cluster) -> float:
    cluster.live()
    return cluster.view.settled("qa")


def test_a_topology_is_settled_since_the_last_worker_changed_what_it_does(cluster: Cluster) -> None:
    cluster.beat("a", after=1000.0)
    word(cluster, "a", settled=500.0)
    assert settled(cluster) == 500.0
    word(cluster, "b", settled=40.0)
    assert settled(cluster) == 40.0
    cluster.beat("a", "b", after=2.0)
    assert settled(cluster) == 42.0
    word(cluster, "a", settled=0.0)
    assert settled(cluster) == 0.0


def test_a_topology_is_not_settled_where_a_worker_has_just_left_it_or_died(cluster: Cluster) -> None:
    cluster.beat("a", after=1000.0)
    for worker in ("a", "b", "c"):
        word(cluster, worker, settled=500.0)
    cluster.say(TopologyStatus("b", "qa").key, None)
    assert settled(cluster) == 0.0
    for _ in range(20):
        cluster.beat("a", after=2.0)
    assert settled(cluster) == 40.0, "c's last beat is as old"
    assert set(cluster.view.live) == {"a"}
    cluster.beat("c")
    for _ in range(6):
        cluster.beat("a", after=2.0)
    assert settled(cluster) == 12.0, "c has died since"


def test_what_no_sage_wrote_is_named_and_passed_over(cluster: Cluster) -> None:
    cluster.say(b"x", b"{")
    cluster.beat("a")
    assert cluster.live() == {"a"}
    assert "no JSON" in cluster.view.foreign["x"]


def test_a_reader_that_finds_an_old_last_word_waits_whether_somebody_speaks(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage.cluster.cluster_view.PATIENCE", 0.3)
    cluster.beat("a")  # long ago, by this machine's clock
    cluster.view.read_fresh()
    assert cluster.view.live == {}
    assert set(cluster.view.workers) == {"a"}


def test_without_the_topic_no_worker_has_run() -> None:
    with pytest.raises(NotFound, match="no worker has run"):
        ClusterView(InMemoryClients(), TOPICS)
