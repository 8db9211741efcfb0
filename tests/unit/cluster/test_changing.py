"""A running topology is changed, and no record is lost, doubled or overtaken: real workers on a broker in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from sage.cluster import changes
from sage.cluster.deploying import Wanted
from sage.cluster.desired import Leaving
from sage.errors import ChangeRefused, Conflict, DeadlineExceeded, InvalidTopology, NotFound
from sage.graph.builder import StreamBuilder
from sage.model.keys import partition_for
from sage.model.partition import TopicPartition
from sage.plan.diff import ALLOW_ORPHANS, REPARTITION
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from tests.support.waiting import wait_until
from tests.unit.cluster.pipelines import Seen, count, shout
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import TOPICS, Town
from tests.unit.cluster.worker.town import town as make_town


@pytest.fixture
def town() -> Iterator[Town]:
    yield from make_town()


def chain(*names: str, moved: dict[str, str] | None = None) -> Plan:
    """``in`` -> a stage for each name -> ``out``."""
    env = StreamBuilder("t", environ={})
    stream: Any = env.from_topic("in")
    for name in names:
        stream = stream.map(steps.plus_one, name=name, partitions=2)
    stream.to("out")
    return compile_plan(replace(env.build(), moved=moved or {}))


def counting(*, partitions: int = 2, step: str = "count", moved: dict[str, str] | None = None) -> Plan:
    env = StreamBuilder("t", environ={})
    keyed = env.from_topic("in").map(shout, name="read", partitions=2).key_by("user", name="by", partitions=partitions)
    keyed.process(count, state=Seen, name=step).to("out")
    return compile_plan(replace(env.build(), moved=moved or {}))


class Feeder:
    """Writes records of some users to ``in`` for as long as it is told to."""

    def __init__(self, town: Town, users: int = 12) -> None:
        self.sent: Counter[str] = Counter()
        self._town = town
        self._users = users
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        producer = self._town.clients.producer()
        number = 0
        while not self._stop.is_set():
            user = f"u{number % self._users}"
            producer.produce("in", orjson.dumps({"user": user}), b"%d" % number)
            producer.flush(5)
            self.sent[user] += 1
            number += 1
            self._stop.wait(0.002)
        producer.close()

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join(10)


def counts(town: Town) -> dict[str, list[int]]:
    """user -> the numbers that came out, in order of partitions and offsets."""
    found: dict[str, list[int]] = {}
    for message in town.clients.messages("out"):
        value = orjson.loads(message.value() or b"")
        found.setdefault(value["key"], []).append(value["n"])
    return found


def assert_counted_once(town: Town, sent: Counter[str]) -> None:
    """Every record was counted, once, in the order of its key."""
    wanted = {user: list(range(1, number + 1)) for user, number in sent.items()}
    wait_until(
        lambda: {user: sorted(numbers) for user, numbers in counts(town).items()} == wanted,
        timeout=30,
        what="all is counted once",
    )


def test_a_step_comes_between_two_others_under_load(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.worker("b")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"), b=(1, "running"))
    town.feed("in", *range(0, 3000, 10))
    said: list[str] = []
    deployed = town.deployer.deploy(chain("first", "between", "last"), say=said.append, timeout=30)
    assert (deployed.desired.version, deployed.desired.held, deployed.desired.leaving) == (2, (), ())
    assert any("last to drain" in line or "to leave" in line or "not read it yet" in line for line in said)
    town.until("between", a=(2, "running"), b=(2, "running"))
    town.feed("in", *range(10_000, 11_000, 10))
    wanted = [n + 2 for n in range(0, 3000, 10)] + [n + 3 for n in range(10_000, 11_000, 10)]
    town.until_out("out", wanted)


def test_a_step_is_removed_when_that_is_meant_and_its_input_is_finished(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "between", "last"))
    town.until("last", a=(1, "running"))
    with pytest.raises(ChangeRefused, match=r"group t.between would be orphaned.*--allow-orphans"):
        town.deployer.deploy(chain("first", "last"))
    town.feed("in", *range(0, 1000, 10))
    town.deployer.deploy(chain("first", "last"), allow={ALLOW_ORPHANS}, timeout=30)
    town.until("last", a=(2, "running"))
    wait_until(lambda: town.states("between") == {}, what="it has gone")
    town.feed("in", *range(10_000, 10_100, 10))
    town.until_out("out", [n + 3 for n in range(0, 1000, 10)] + [n + 2 for n in range(10_000, 10_100, 10)])


def test_partitions_grow_under_load_and_every_key_goes_on_counting(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.worker("b")
    town.deployer.deploy(counting(partitions=2))
    town.until("count", a=(1, "running"), b=(1, "running"))
    with Feeder(town) as feeder:
        wait_until(lambda: len(town.clients.messages("out")) > 50, what="it counts")
        with pytest.raises(ChangeRefused, match=REPARTITION):
            town.deployer.deploy(counting(partitions=6))
        town.deployer.deploy(counting(partitions=6), allow={REPARTITION}, timeout=30)
        before = len(town.clients.messages("out"))
        wait_until(lambda: len(town.clients.messages("out")) > before + 50, timeout=30, what="it counts on")
    assert_counted_once(town, feeder.sent)
    for number in range(6):
        for message in town.clients.messages("t.count.changelog", number):
            key = message.key() or b""
            if message.value() is not None and number >= 2:
                assert partition_for(key, 6) == number
    described = town.clients.admin().describe(["t.by", "t.count.retry", "t.count.changelog"])
    assert {info.partitions for info in described.values()} == {6}


def test_a_renamed_step_goes_on_with_its_state_and_a_rollback_brings_both_back(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(counting())
    town.until("count", a=(1, "running"))
    with Feeder(town) as feeder:
        wait_until(lambda: len(town.clients.messages("out")) > 20, what="it counts")
        town.deployer.deploy(counting(step="tally", moved={"count": "tally"}), timeout=30)
        town.until("tally", a=(2, "running"))
        before = len(town.clients.messages("out"))
        wait_until(lambda: len(town.clients.messages("out")) > before + 20, timeout=30, what="it counts on")
        rolled = town.deployer.rollback("t", timeout=30)
        assert rolled.deployment.version == 1
        town.until("count", a=(1, "running"))
    assert_counted_once(town, feeder.sent)
    wait_until(lambda: town.states("tally") == {}, what="it has gone")


def test_a_deployer_that_died_in_the_middle_is_gone_on_from(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(counting(partitions=2))
    town.until("count", a=(1, "running"))
    plan = counting(partitions=4)
    with Feeder(town) as feeder:
        wait_until(lambda: len(town.clients.messages("out")) > 20, what="it counts")
        with town.deployer.session("t") as dead:  # it wrote phase 2, grew the edge, and was killed
            deployment = town.deployer._deploying(dead, Wanted.of(plan), (), 1.0, print)._made()
            assert dead.pointer is not None
            leaving = (Leaving(1, "count"),)
            dead.point(changes.hold(dead.pointer, deployment.version, ("by",), leaving), deployment)
        town.until("count", a=(1, "drained"))
        town.clients.admin().widen("t.by", 4)
        with pytest.raises(ChangeRefused, match="deploy that one again"):
            town.deployer.rollback("t", 1)
        again = town.deployer.deploy(plan, allow={REPARTITION}, timeout=30)
        assert again.deployment.version == deployment.version
        town.until("count", a=(2, "running"))
        before = len(town.clients.messages("out"))
        wait_until(lambda: len(town.clients.messages("out")) > before + 20, timeout=30, what="it counts on")
    assert_counted_once(town, feeder.sent)


def test_an_unfinished_change_can_be_taken_back_while_nothing_was_moved(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    plan = chain("first", "between", "last")
    with town.deployer.session("t") as dead:
        deployment = town.deployer._deploying(dead, Wanted.of(plan), (), 1.0, print)._made()
        assert dead.pointer is not None
        dead.point(changes.hold(dead.pointer, 2, ("first",), (Leaving(1, "last"),)), deployment)
    town.until("last", a=(1, "drained"))
    town.deployer.rollback("t", 1)
    town.until("last", a=(1, "running"))
    town.until("first", a=(1, "running"))
    town.feed("in", 1)
    town.until_out("out", [3])


def test_what_does_not_drain_in_time_leaves_the_running_version_as_it_was(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    with pytest.raises(DeadlineExceeded, match="goes on as before"):
        town.deployer.deploy(chain("first", "between", "last"), timeout=0.0)
    pointer = town.deployer.look().current("t")
    assert (pointer.version, pointer.candidate, pointer.held, pointer.leaving) == (1, None, (), ())
    town.feed("in", 1)
    town.until_out("out", [3])


def test_a_paused_topology_with_records_on_their_way_is_not_rewired(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    town.feed("in", 1)
    town.until_out("out", [3])
    town.deployer.pause("t")
    town.until("last", a=(1, "paused"))
    wait_until(lambda: sum(town.clients.committed("t.last").values()) == 1, what="what is done is committed")
    town.clients.producer().produce("t.first", b"5", partition=0)
    with pytest.raises(ChangeRefused, match=r"it is paused with 1 records for last.*resume"):
        town.deployer.deploy(chain("first", "between", "last"))


def test_a_drained_topology_is_rewired_without_a_worker(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    town.feed("in", 1, 2, 3)
    town.until_out("out", [3, 4, 5])
    town.deployer.drain("t")
    town.deployer.wait_settled("t", 20)
    town.leave("a")
    town.deployer.deploy(chain("first", "between", "last"))
    assert town.deployer.look().current("t").state == "running"
    town.feed("in", 7)
    town.worker("b")
    town.until_out("out", [3, 4, 5, 10])


def test_offsets_that_kafka_forgot_while_it_was_drained_are_put_back(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    town.until("first", a=(1, "running"))
    town.feed("in", 1, 2, 3)
    town.until_out("out", [2, 3, 4])
    town.deployer.drain("t")
    town.deployer.wait_settled("t", 20)
    kept = town.deployer.look().current("t").offsets
    assert sum(kept["t.first"].values()) == 3
    town.clients.admin().delete_groups(["t.first"])  # what Kafka does after seven days
    resumed = town.deployer.resume("t")
    assert resumed.offsets == {}
    town.feed("in", 7)
    town.until_out("out", [2, 3, 4, 8])


def test_offsets_that_kafka_forgot_after_a_delete_are_put_back_by_the_next_deploy(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    town.until("first", a=(1, "running"))
    town.feed("in", 1, 2, 3)
    town.until_out("out", [2, 3, 4])
    admin = town.clients.admin()
    places = [TopicPartition("in", number) for number in range(4)]
    wait_until(
        lambda: sum(offset or 0 for offset in admin.committed("t.first", places).values()) == 3, what="committed"
    )
    kept = town.deployer.delete("t").offsets
    assert sum(kept["t.first"].values()) == 3
    wait_until(lambda: not town.said("t").get("a"), what="the worker has left")
    admin.delete_groups(["t.first"])  # what Kafka does after seven days
    town.deployer.deploy(chain("first"))
    town.feed("in", 7)
    town.until_out("out", [2, 3, 4, 8])


@pytest.mark.parametrize("verb", ["stop", "delete", "drain"])
def test_what_was_under_way_when_it_was_told_to_leave_is_in_the_offsets_that_are_kept(town: Town, verb: str) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    town.feed("in", *range(500))
    left = getattr(town.deployer, verb)("t")
    assert left.at_rest
    assert all(town.clients.admin().members(group) == [] for group in ("t.first", "t.last"))
    for group, kept in left.offsets.items():
        now = town.clients.committed(group)
        assert kept == {f"{place.topic}:{place.partition}": offset for place, offset in now.items()}
    assert town.deployer.look().pointers["t"] == left
    if verb == "drain":
        assert sum(left.offsets["t.last"].values()) == 500


def test_a_drain_that_takes_longer_is_written_down_by_who_waits_for_it(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    town.until("first", a=(1, "running"))
    town.feed("in", *range(500))
    asked = town.deployer.drain("t", patience=0.0)
    assert not asked.at_rest
    town.deployer.wait_settled("t", 20)
    written = town.deployer.look().current("t")
    assert (written.at_rest, sum(written.offsets["t.first"].values())) == (True, 500)
    town.deployer.wait_settled("t", 20)
    assert town.deployer.look().current("t") == written, "it is written down once"
    town.clients.admin().delete_groups(["t.first"])  # what Kafka does after seven days
    assert town.deployer.stop("t").offsets == written.offsets, "what Kafka has forgotten stays written down"
    assert not town.deployer.resume("t").at_rest


@pytest.mark.parametrize("is_running", [False, True])
def test_a_deploy_that_fails_after_the_workers_checked_it_leaves_no_candidate(town: Town, is_running: bool) -> None:
    town.worker("a")
    if is_running:
        town.topic("other")
        env = StreamBuilder("t", environ={})
        env.from_topic("other").map(steps.plus_one, name="first").to("out")
        town.deployer.deploy(compile_plan(env.build()))
    before = town.deployer.look()
    plan = chain("first")
    _, revision = town.deployer.check_on_workers(plan)
    with pytest.raises(NotFound, match="topic 'in' does not exist"):
        town.deployer.deploy(plan, expected=revision, allow=(ALLOW_ORPHANS,))
    after = town.deployer.look()
    assert after.deployments.keys() == before.deployments.keys()
    assert {name: (each.version, each.candidate) for name, each in after.pointers.items()} == (
        {"t": (1, None)} if is_running else {}
    )


def test_a_stopped_topology_settles_when_all_have_left(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    town.deployer.wait_settled("t", 20)
    town.deployer.stop("t")
    town.deployer.wait_settled("t", 20)
    wait_until(lambda: town.states("first") == {}, what="it has gone")
    assert town.clients.admin().members("t.first") == []


def test_delete_keeps_the_data_and_purge_removes_all_of_it(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(counting())
    town.feed("in", {"user": "ann"})
    wait_until(lambda: len(town.out("out")) == 1, what="it counted")
    with pytest.raises(ChangeRefused, match="delete it first"):
        town.deployer.purge("t")
    town.deployer.delete("t")
    with pytest.raises(NotFound):
        town.deployer.pause("t")
    assert "t.count.changelog" in town.clients.topics()
    wanted = town.deployer.purgeable("t")
    purged = town.deployer.purge("t", 20)
    assert purged == wanted
    assert {"t.by", "t.dlq", "t.count.changelog", "t.count.retry"} <= set(purged.topics)
    assert not [name for name in town.clients.topics() if name.startswith("t.")]
    assert not [name for name in town.clients.admin().list_groups() if name.startswith("t.")]
    assert {"in", "out"} <= set(town.clients.topics())
    log = town.deployer.look()
    assert (log.pointers, log.deployments) == ({}, {})


def test_a_preflight_says_what_is_missing_and_leaves_nothing_behind(town: Town) -> None:
    town.topic("in")
    with pytest.raises(NotFound, match="no worker is online"):
        town.deployer.check_on_workers(chain("first"), timeout=1.0)
    town.worker("a")
    preflight, revision = town.deployer.check_on_workers(chain("first"), timeout=20)
    assert preflight.problems == []
    assert town.states("first") == {}, "a candidate does not run"
    deployed = town.deployer.deploy(chain("first"), expected=revision)
    assert deployed.deployment.version == 1
    town.deployer.wait_settled("t", 20)
    env = StreamBuilder("t", environ={"MISSING": "x"})
    env.from_topic("in").map(steps.Keyed, {"api_key": "${MISSING}"}, name="first").to("out")
    with pytest.raises(InvalidTopology, match=r"MISSING.*on worker a"):
        town.deployer.check_on_workers(compile_plan(env.build()), timeout=20)
    log = town.deployer.look()
    assert log.versions("t") == [1]
    assert log.current("t").candidate is None


def test_two_who_deploy_at_the_same_time_end_in_one_version_and_one_word(town: Town) -> None:
    town.topic("in")
    town.deployer.deploy(chain("first"))
    seen = town.deployer.propose(chain("first")).expected
    outcomes: list[object] = []
    ready = threading.Barrier(4)

    def racing(number: int) -> Callable[[], None]:
        env = StreamBuilder("t", environ={})
        env.from_topic("in").map(steps.plus_one, name="first", timeout=f"{number + 1}s").to("out")
        plan = compile_plan(env.build())

        def run() -> None:
            ready.wait()
            try:
                outcomes.append(town.deployer.deploy(plan, expected=seen).deployment.version)
            except Conflict as error:
                outcomes.append(error)

        return run

    threads = [threading.Thread(target=racing(number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    won = [each for each in outcomes if isinstance(each, int)]
    assert (won, len(outcomes)) == ([2], 4)
    assert town.deployer.look().current("t").version == 2


def test_committed_offsets_go_along_to_a_step_that_takes_over_a_foreign_topic(town: Town) -> None:
    town.topic("in", 1)
    town.worker("a")
    town.deployer.deploy(chain("old", "last"))
    town.until("last", a=(1, "running"))
    town.feed("in", 1, 2)
    town.until_out("out", [3, 4])
    town.deployer.deploy(chain("new", "last", moved={"old": "new"}), timeout=30)
    town.feed("in", 5)
    town.until_out("out", [3, 4, 7])
    committed = town.clients.committed("t.new")
    wait_until(lambda: town.clients.committed("t.new")[TopicPartition("in", 0)] == 3, what="it commits on")
    assert committed[TopicPartition("in", 0)] >= 2
    assert TOPICS.topologies in town.clients.topics()


def test_who_waits_outlives_brokers_that_are_away_as_workers_do(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    failures: list[BaseException] = []
    looked = threading.Event()

    def wait() -> None:
        try:
            town.deployer.wait_settled("t", 30, show=lambda _: looked.set())
        except BaseException as error:
            failures.append(error)

    town.deployer.wait_settled("t", 30)
    town.deployer.pause("t")
    with town.clients.deliveries_held():  # the worker cannot say that it has paused
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert looked.wait(20)
        with town.clients.down():
            waiting.join(1.0)
            assert waiting.is_alive()
    waiting.join(30)
    assert (failures, waiting.is_alive()) == ([], False)
