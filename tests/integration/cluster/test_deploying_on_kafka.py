"""Deploying over Apache Kafka: racing deployers are fenced, and a running topology is changed without a record lost,
doubled or overtaken. The workers are real ones, several in this process; under load, exactly once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from sage.cluster import changes
from sage.cluster.deployer import Deployer
from sage.cluster.desired import Leaving
from sage.cluster.names import ControlTopics
from sage.cluster.worker.actor_host import ActorHost
from sage.cluster.worker.checks import Checker, Policy
from sage.cluster.worker.identity import Identity
from sage.cluster.worker.topology_host import OpenWorld
from sage.cluster.worker.worker import Settings, Worker
from sage.errors import ChangeRefused, Conflict
from sage.graph.builder import StreamBuilder
from sage.model.partition import TopicPartition
from sage.plan.diff import ALLOW_ORPHANS, REPARTITION
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import KafkaClients, TopicSpec
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.world import World
from sage.state.in_memory import MemoryStores
from sage.testing.services import ScriptedServices
from sage.tracing.idle import IdleTracer
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until
from tests.unit.cluster.pipelines import Seen, count, shout

PATIENCE = 120.0


class Site:
    """Workers on Kafka, a topology of a name of its own, and who deploys it."""

    def __init__(self, clients: KafkaClients, name: str) -> None:
        self.clients = clients
        self.name = name
        self.topics = ControlTopics(f"{name}-control")
        self.deployer = Deployer(clients, self.topics, who="ann@laptop")
        self._workers: list[tuple[Worker, threading.Thread]] = []
        self._admin = clients.admin()
        self._reader = clients.consumer(None)
        self._counts: dict[str, list[int]] = {}
        self._read = 0
        clients.admin().create([TopicSpec(f"{name}-in", 4)])

    def worker(self, name: str) -> None:
        def make_world(plan: Plan) -> OpenWorld:
            loop = LoopThread()
            world = World(self.clients, ScriptedServices(), IdleTracer(), SystemClock(), loop, {}, name, MemoryStores())
            return OpenWorld(world, loop.close)

        made = Worker(
            Identity(f"{self.name}-{name}"), self.clients, self.topics,
            Checker(name, Policy(allow_code=("tests",)), {}), make_world, Settings(drain_timeout=10.0),
        )  # fmt: skip
        thread = threading.Thread(target=made.run, daemon=True)
        thread.start()
        self._workers.append((made, thread))
        wait_until(lambda: made.is_ready, timeout=30, what=f"worker {name} is ready")

    def close(self) -> None:
        for worker, _ in self._workers:
            worker.leave()
        for _, thread in self._workers:
            thread.join(40)
            assert not thread.is_alive()
        self._reader.close()
        self._admin.close()

    def counting(
        self, *, partitions: int = 2, step: str = "count", moved: dict[str, str] | None = None, between: str = ""
    ) -> Plan:
        env = StreamBuilder(self.name, environ={}, guarantee="exactly_once")
        read = env.from_topic(f"{self.name}-in").map(shout, name="read", partitions=2)
        if between:
            read = read.map(shout, name=between, partitions=2)
        read.key_by("user", name="by", partitions=partitions).process(count, state=Seen, name=step).to(
            f"{self.name}-out"
        )
        return compile_plan(replace(env.build(), moved=moved or {}))

    def mapping(self, timeout: int) -> Plan:
        env = StreamBuilder(self.name, environ={})
        env.from_topic(f"{self.name}-in").map(shout, name="say", timeout=f"{timeout}s", partitions=1).to(
            f"{self.name}-out"
        )
        return compile_plan(env.build())

    def deploy(self, plan: Plan, *allow: str) -> int:
        version = self.deployer.deploy(plan, allow=allow, timeout=PATIENCE).deployment.version
        self.deployer.wait_settled(self.name, PATIENCE)
        return version

    def counts(self) -> dict[str, list[int]]:
        """user -> the numbers that have come out so far."""
        topic = f"{self.name}-out"
        place = TopicPartition(topic, 0)
        (end,) = self._admin.end_offsets([place]).values()
        if not self._reader.assignment():
            self._reader.assign({place: -2})
        while self._read < end:
            for message in self._reader.poll(10_000, 0.2):
                value = orjson.loads(message.value() or b"")
                self._counts.setdefault(value["key"], []).append(value["n"])
                self._read = message.offset() + 1
            self._read = max(self._read, self._reader.ends_reached().get(place, 0))
        return self._counts

    def written(self, topic: str) -> int:
        """The end offsets of a topic summed up."""
        partitions = self._admin.describe([topic])[topic].partitions
        return sum(self._admin.end_offsets([TopicPartition(topic, number) for number in range(partitions)]).values())

    def units(self) -> list[ActorHost]:
        """What the workers host."""
        return [unit for worker, _ in self._workers for host in worker.hosts.values() for unit in host.units]

    @property
    def total(self) -> int:
        """How many numbers have come out so far."""
        return sum(map(len, self.counts().values()))

    def goes_on(self, records: int = 100) -> None:
        """Wait until some more numbers have come out."""
        before = self.total
        wait_until(lambda: self.total > before + records, timeout=PATIENCE, what="it counts on")


class Feeder:
    """Writes records of some users for as long as it is told to."""

    def __init__(self, site: Site) -> None:
        self.sent: Counter[str] = Counter()
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        producer = self._site.clients.producer()
        number = 0
        while not self._stop.is_set():
            user = f"u{number % 20}"
            producer.produce(f"{self._site.name}-in", orjson.dumps({"user": user}), b"%d" % number)
            self.sent[user] += 1
            number += 1
            if number % 20 == 0:
                producer.flush(10)
                self._stop.wait(0.1)
        assert producer.flush(30) == 0
        producer.close()

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join(40)


@pytest.fixture
def site(apache_kafka: ApacheBroker, unique: Callable[[str], str]) -> Iterator[Site]:
    made = Site(apache_kafka.clients(), unique("site"))
    yield made
    made.close()


def test_of_several_who_deploy_at_once_one_wins_and_the_others_are_told(site: Site) -> None:
    site.deployer.deploy(site.mapping(1))
    seen = site.deployer.propose(site.mapping(2)).expected
    outcomes: list[Any] = []
    ready = threading.Barrier(4)

    def race(number: int) -> None:
        deployer = Deployer(site.clients, site.topics, who=f"user{number}@host")
        ready.wait()
        try:
            outcomes.append(deployer.deploy(site.mapping(10 + number), expected=seen).desired)
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [each for each in outcomes if not isinstance(each, Conflict)]
    assert (len(outcomes), len(won)) == (4, 1), outcomes
    log = site.deployer.look()
    assert log.current(site.name) == won[0]
    assert log.versions(site.name) == [1, 2]
    assert [pointer.revision for pointer in log.changes(site.name)] == [1, 2]


def test_an_old_deployer_that_comes_back_is_fenced_and_told_who_was_first(site: Site) -> None:
    first = site.deployer.deploy(site.mapping(1))
    with site.deployer.session(site.name) as old:
        Deployer(site.clients, site.topics, who="bob@desk").deploy(site.mapping(2))
        with pytest.raises(Conflict, match="bob@desk"):
            old.point(first.desired, replace(first.deployment, version=9))
    log = site.deployer.look()
    assert (log.current(site.name).version, log.versions(site.name)) == (2, [1, 2])


def test_a_topology_is_renamed_grown_rolled_back_and_purged_under_load(site: Site) -> None:
    site.worker("a")
    site.worker("b")
    assert site.deploy(site.counting()) == 1
    with Feeder(site) as feeder:
        site.goes_on()
        assert site.deploy(site.counting(step="tally", moved={"count": "tally"})) == 2
        site.goes_on()
        with pytest.raises(ChangeRefused, match=REPARTITION):
            site.deployer.deploy(site.counting(step="tally", partitions=5))
        assert site.deploy(site.counting(step="tally", partitions=5), REPARTITION) == 3
        site.goes_on()
        rolled = site.deployer.rollback(site.name, 1, timeout=PATIENCE)
        assert rolled.deployment.version == 1
        site.deployer.wait_settled(site.name, PATIENCE)
        site.goes_on()
    wanted = {user: list(range(1, number + 1)) for user, number in feeder.sent.items()}
    wait_until(
        lambda: site.counts() == wanted, timeout=PATIENCE, what="each record is counted once, in its key's order"
    )
    site.deployer.drain(site.name)
    site.deployer.wait_settled(site.name, PATIENCE)
    assert site.deployer.look().current(site.name).offsets
    site.deployer.delete(site.name)
    site.deployer.purge(site.name, PATIENCE)
    admin = site.clients.admin()
    mine = f"{site.name}."
    assert not [info.name for info in admin.list_topics() if info.name.startswith(mine)]
    assert not [group for group in admin.list_groups() if group.startswith(mine)]
    assert site.deployer.look().pointers == {}


def test_a_step_comes_between_two_others_and_goes_again_under_load(site: Site) -> None:
    site.worker("a")
    site.worker("b")
    assert site.deploy(site.counting()) == 1
    with Feeder(site) as feeder:
        site.goes_on()
        assert site.deploy(site.counting(between="between")) == 2
        site.goes_on()
        passed = site.written(f"{site.name}.between")
        assert passed, "records take the new way"
        with pytest.raises(ChangeRefused, match=ALLOW_ORPHANS):
            site.deployer.deploy(site.counting())
        assert site.deploy(site.counting(), ALLOW_ORPHANS) == 3
        site.goes_on()
        last = site.written(f"{site.name}.between")
        site.goes_on()
        assert site.written(f"{site.name}.between") == last > passed, "records take the old way again"
    wanted = {user: list(range(1, number + 1)) for user, number in feeder.sent.items()}
    wait_until(
        lambda: site.counts() == wanted, timeout=PATIENCE, what="each record is counted once, in its key's order"
    )
    assert {unit.unit.name for unit in site.units()} == {stage.name for stage in site.counting().stages}


def test_a_deployer_that_was_killed_while_edges_drained_is_gone_on_from(site: Site) -> None:
    site.worker("a")
    site.deploy(site.counting())
    plan = site.counting(partitions=3)
    with Feeder(site) as feeder:
        site.goes_on()
        with site.deployer.session(site.name) as dead:
            current = dead.pointer
            assert current is not None
            running = dead.log.deployment(site.name, 1)
            half = replace(running, version=2, plan=plan.to_json())
            dead.point(changes.hold(current, 2, ("by",), (Leaving(1, "count"),)), half)
        assert site.deploy(plan, REPARTITION) == 2
        site.goes_on()
    wanted = {user: list(range(1, number + 1)) for user, number in feeder.sent.items()}
    wait_until(lambda: site.counts() == wanted, timeout=PATIENCE, what="each record is counted once")


def test_offsets_that_kafka_has_forgotten_are_put_back(site: Site) -> None:
    site.worker("a")
    site.deploy(site.mapping(1))
    producer = site.clients.producer()
    for number in range(10):
        producer.produce(f"{site.name}-in", b'{"n": 1}', partition=number % 4)
    producer.flush(10)
    producer.close()
    place = [TopicPartition(f"{site.name}-out", 0)]
    admin = site.clients.admin()
    wait_until(lambda: admin.end_offsets(place)[place[0]] == 10, timeout=60, what="all came out")
    site.deployer.drain(site.name)
    site.deployer.wait_settled(site.name, PATIENCE)
    admin.delete_groups([f"{site.name}.say"])
    site.deployer.resume(site.name)
    site.deployer.wait_settled(site.name, PATIENCE)
    inputs = [TopicPartition(f"{site.name}-in", number) for number in range(4)]
    assert sum(offset or 0 for offset in admin.committed(f"{site.name}.say", inputs).values()) == 10
    assert admin.end_offsets(place)[place[0]] == 10, "nothing is read again"
