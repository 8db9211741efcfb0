"""What the endpoints of a worker answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from sage.cluster.worker import worker as worker_module
from sage.cluster.worker.health import Health, exposition
from sage.errors import PortTaken
from tests.integration.cluster.workers import fetch
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import Town
from tests.unit.cluster.worker.town import town as make_town


@pytest.fixture
def town() -> Iterator[Town]:
    yield from make_town()


def test_a_worker_is_ready_until_it_leaves_and_alive_until_its_end(town: Town) -> None:
    worker = town.worker("a")
    health = Health(worker, "127.0.0.1", 0)
    assert fetch(health.port, "/healthz") == (200, "ok\n")
    assert fetch(health.port, "/readyz") == (200, "ok\n")
    assert fetch(health.port, "/other")[0] == 404
    town.leave("a")
    assert fetch(health.port, "/readyz")[0] == 503
    health.close()


def test_a_worker_whose_loop_does_not_turn_is_not_alive_until_it_turns_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = town.worker("a")
    health = Health(worker, "127.0.0.1", 0)
    assert fetch(health.port, "/healthz") == (200, "ok\n")
    goes_on = threading.Event()

    def hangs() -> set[str]:
        goes_on.wait(60)
        return set()

    monkeypatch.setattr(worker, "_read", hangs)
    monkeypatch.setattr(worker_module, "STANDS_STILL_AFTER", 1.0)
    try:
        stands_still = (503, "its loop stands still\n")
        wait_until(lambda: fetch(health.port, "/healthz") == stands_still, what="it is not alive")
    finally:
        goes_on.set()
    wait_until(lambda: fetch(health.port, "/healthz") == (200, "ok\n"), what="it is alive again")
    health.close()


def test_metrics_have_what_each_stage_did(town: Town) -> None:
    town.topic("in")
    worker = town.worker("a")
    health = Health(worker, "127.0.0.1", 0)
    town.deploy(lambda b: b.from_topic("in").map(steps.times_ten, name="work").to("out"))
    town.feed("in", 1, 2, 3)
    read = 'sage_records_read_total{topology="t",operator="work"} 3.0'
    wait_until(lambda: read in fetch(health.port, "/metrics")[1], what="three were read")
    text = fetch(health.port, "/metrics")[1]
    assert "# TYPE sage_records_read_total counter" in text
    assert 'sage_stage_partitions{topology="t",operator="work"} 4.0' in text
    health.close()


def test_nobody_is_woken_for_a_stage_that_rests_as_it_was_told(town: Town) -> None:
    town.topic("in")
    worker = town.worker("a")
    health = Health(worker, "127.0.0.1", 0)
    town.deploy(lambda b: b.from_topic("in").map(steps.times_ten, name="work").to("out"))

    def told(running: int, paused: int) -> bool:
        text = fetch(health.port, "/metrics")[1]
        return all(
            f'sage_stage_{name}{{topology="t",operator="work"}} {value}.0' in text
            for name, value in (("running", running), ("paused", paused))
        )

    wait_until(lambda: told(running=1, paused=0), what="it runs")
    town.deployer.pause("t")
    wait_until(lambda: told(running=1, paused=1), what="it rests")
    health.close()


def test_a_port_that_is_taken_is_told(town: Town) -> None:
    worker = town.worker("a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortTaken, match="another --health-port"):
            Health(worker, "127.0.0.1", taken.getsockname()[1])


def test_labels_are_written_so_that_prometheus_reads_them() -> None:
    text = "".join(exposition(iter([("kafka_consumergroup_lag", {"topic": 'a"b\\c'}, 1.0)])))
    assert 'kafka_consumergroup_lag{topic="a\\"b\\\\c"} 1.0\n' in text
