"""What a cluster of workers costs and how quickly it acts: ``python -m tests.bench.cluster``; ``make bench-cluster``.

Real worker processes on Apache Kafka (one node). Writes ``build/bench/cluster.json`` and prints what it found.

1. Deploy to first output; the pause of a rolling upgrade, of a drain and of a takeover: the longest gap between two
   outputs of a topology under a steady load, as the broker's timestamps tell it.
2. Many idle topologies: memory and processor time of the workers, the records and bytes of the control topics.
3. The reconcile of a worker: microseconds per topology, in this process, without brokers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sage.cluster.desired import Desired
from sage.cluster.status import Check, StageStatus, TopologyStatus
from sage.cluster.worker.reconcile import Goal, Peer, Running, hosts, reconcile
from sage.cluster.worker.units import units_of
from sage.graph.builder import StreamBuilder
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import RawMessage, TopicSpec
from tests.chaos.worker import mark
from tests.integration.cluster.workers import Cluster, replanned
from tests.support.brokers import ApacheBroker, start_apache
from tests.support.records import everything
from tests.support.waiting import wait_until

BUILD = Path(__file__).parents[2] / "build" / "bench"
PACE = 0.01
"""Seconds between two records of the steady load."""


@dataclass
class Found:
    """All figures; seconds, bytes, cores."""

    deploy_to_first_output: float = 0.0
    rolling_upgrade_gap: float = 0.0
    scale_gap: float = 0.0
    drain_gap: float = 0.0
    takeover_gap: float = 0.0
    steady_gap: float = 0.0
    idle: dict[str, Any] = field(default_factory=dict)
    reconcile: dict[str, Any] = field(default_factory=dict)


class Load:
    """A steady load on a topology, and the gaps in its output."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def _feed(self) -> None:
        producer = self.cluster.broker.clients().producer()
        number = 0
        while not self._ended.wait(PACE):
            producer.produce(f"{self.cluster.name}-in", b'{"id": %d}' % number, b"k%d" % (number % 50))
            producer.poll(0)
            number += 1
        producer.flush(10)
        producer.close()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def gap(self, event: Callable[[], object], before: float = 3.0, after: float = 12.0) -> float:
        """The longest time without an output of any one partition's records while ``event`` happens."""
        time.sleep(before)
        began = int(time.time() * 1000)
        event()
        time.sleep(after)
        written: dict[int, list[int]] = {}
        for message in everything(self.cluster.broker.clients(), f"{self.cluster.name}-out"):
            if message.timestamp()[1] >= began - 1000:
                written.setdefault(message.partition(), []).append(message.timestamp()[1])
        gaps = [b - a for times in written.values() for a, b in zip(sorted(times), sorted(times)[1:], strict=False)]
        return max(gaps, default=0) / 1000


def measure_events(broker: ApacheBroker, folder: Path, found: Found) -> None:
    """Part 1."""
    cluster = Cluster(broker, f"bench-{int(time.time())}", "sync", "at_least_once", folder, workers=3)
    admin = broker.clients().admin()
    admin.delete([f"{cluster.name}-out"])
    # Stamped when it is written: the input's own time would hide every wait.
    admin.create([TopicSpec(f"{cluster.name}-out", 4, config={"message.timestamp.type": "LogAppendTime"})])
    admin.close()
    try:
        cluster.online(3)
        plan = cluster.plan()
        with Load(cluster) as load:
            began = time.monotonic()
            cluster.deployer.deploy(plan)
            wait_until(
                lambda: everything(broker.clients(), f"{cluster.name}-out"),
                timeout=60,
                what="the first output is there",
            )
            found.deploy_to_first_output = time.monotonic() - began
            cluster.settled()
            found.steady_gap = load.gap(lambda: None, after=5.0)
            found.rolling_upgrade_gap = load.gap(lambda: cluster.deploy(replanned(plan, concurrency=2)))
            stage = plan.stages[0].name

            def narrow() -> None:
                cluster.deployer.scale(cluster.name, {stage: 2})
                cluster.settled()

            found.scale_gap = load.gap(narrow)
            cluster.deployer.scale(cluster.name, {stage: 3})
            cluster.settled()
            found.drain_gap = load.gap(lambda: cluster.end(cluster.workers[0]))
            found.takeover_gap = load.gap(cluster.workers[0].kill, after=25.0)
    finally:
        cluster.close()


def measure_idle(broker: ApacheBroker, folder: Path, found: Found, *, topologies: int, partitions: int) -> None:
    """Part 2."""
    name = f"idle-{int(time.time())}"
    cluster = Cluster(broker, name, "sync", "at_least_once", folder, workers=1)
    admin = broker.clients().admin()
    width = max(1, partitions // topologies)
    try:
        cluster.online(1)
        empty = _worker(cluster)
        names = [f"{name}-{number}" for number in range(topologies)]
        for each in names:
            admin.create([TopicSpec(f"{each}-in", width), TopicSpec(f"{each}-out", 1)])
        began = time.monotonic()
        for each in names:
            cluster.deployer.deploy(_small(each))
        deployed = time.monotonic() - began
        wait_until(
            lambda: _running(cluster, names) == topologies, timeout=600, what=f"all run: {_running(cluster, names)}"
        )
        running = time.monotonic() - began
        time.sleep(30.0)
        full = _worker(cluster)
        sizes = {topic: _size(broker, topic) for topic in cluster.topics.all}
        time.sleep(20.0)
        later = {topic: _size(broker, topic) for topic in cluster.topics.all}
        status = cluster.topics.status
        found.idle = {
            "topologies": topologies, "partitions": width * topologies, "workers": 1,
            "memory_of_an_empty_worker": empty["memory"], "memory": full["memory"],
            "memory_per_idle_topology": (full["memory"] - empty["memory"]) // topologies,
            "cores_of_an_empty_worker": empty["cpu"], "cores": full["cpu"],
            "threads": full["threads"], "threads_of_an_empty_worker": empty["threads"],
            "seconds_to_deploy_all": round(deployed, 1), "seconds_until_all_run": round(running, 1),
            "control_topics": sizes,
            **{
                f"status_{what}_per_second": (later[status][what] - sizes[status][what]) / 20.0
                for what in ("records", "bytes")
            },
        }  # fmt: skip
    finally:
        cluster.close()
        admin.close()


def _small(name: str) -> Plan:
    builder = StreamBuilder(name)
    builder.from_topic(f"{name}-in").map(mark, name="mark").to(f"{name}-out")
    return compile_plan(builder.build())


def _running(cluster: Cluster, names: list[str]) -> int:
    cluster.view.read_to_end()
    said = [word for seen in cluster.view.live.values() for word in seen.topologies.values() if word.topology in names]
    return sum(stage.state == "running" for word in said for stage in word.stages)


def _worker(cluster: Cluster) -> dict[str, Any]:
    """What the only worker uses, over a few seconds."""
    time.sleep(6.0)
    cluster.view.read_to_end()
    (seen,) = cluster.view.live.values()
    threads = len(list(Path(f"/proc/{seen.status.pid}/task").iterdir()))
    return {"memory": seen.status.memory, "cpu": seen.status.cpu, "threads": threads}


def _size(broker: ApacheBroker, topic: str) -> dict[str, int]:
    """What a topic holds: records and their bytes (keys and values), as they were written and as compaction leaves
    them."""
    written = everything(broker.clients(), topic)
    kept = {message.key() or str(message.offset()): message for message in written}
    return {
        "records": len(written), "bytes": sum(map(_bytes, written)),
        "keys": len(kept), "bytes_compacted": sum(map(_bytes, kept.values())),
    }  # fmt: skip


def _bytes(message: RawMessage) -> int:
    return len(message.key() or b"") + len(message.value() or b"")


def measure_reconcile(found: Found, *, topologies: int, workers: int) -> None:
    """Part 3: a look at everything, as each worker has one a second, with nothing to do."""
    from sage.cluster.deployment import Deployment

    names = [f"t{number}" for number in range(topologies)]
    goals = [Goal(Desired(name, 1), {1: units_of(Deployment(name, 1, _small(name).to_json()))}) for name in names]
    ids = [f"w{number}" for number in range(workers)]
    bare = [Peer(each, topologies={n: TopologyStatus(each, n, (), (Check(1),)) for n in names}) for each in ids]
    chosen = {place: who for goal in goals for place, who in hosts(goal, bare).items()}
    peers = [
        Peer(each, topologies={
            place.topology: TopologyStatus(each, place.topology, (StageStatus(place.unit, 1, "running"),), (Check(1),))
            for place, who in chosen.items() if each in who
        })
        for each in ids
    ]  # fmt: skip
    units = {(goal.desired.name, unit.name): unit for goal in goals for unit in goal.units[1]}
    mine = [
        Running(place.topology, place.unit, 1, units[place.topology, place.unit].digest)
        for place, who in chosen.items() if ids[0] in who
    ]  # fmt: skip
    times = []
    for _ in range(10):
        began = time.perf_counter()
        reconcile(ids[0], goals, peers, mine, frozenset())
        times.append(time.perf_counter() - began)
    found.reconcile[f"{topologies} topologies, {workers} workers"] = {
        "seconds": round(median(times), 5), "microseconds_per_topology": round(median(times) / topologies * 1e6, 1),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topologies", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=1_000)
    parser.add_argument("--only", choices=["events", "idle", "reconcile"])
    given = parser.parse_args()
    found = Found()
    if given.only in {None, "reconcile"}:
        for workers in (3, 30, 300):
            measure_reconcile(found, topologies=given.topologies, workers=workers)
    if given.only in {None, "events", "idle"}:
        broker = start_apache(1)
        try:
            with tempfile.TemporaryDirectory(prefix="sage-bench-") as folder:
                if given.only in {None, "events"}:
                    measure_events(broker, Path(folder), found)
                if given.only in {None, "idle"}:
                    measure_idle(broker, Path(folder), found, topologies=given.topologies, partitions=given.partitions)
        finally:
            broker.cluster.stop()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "cluster.json").write_text(json.dumps(asdict(found), indent=2))
    json.dump(asdict(found), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
