"""Worker processes on Apache Kafka: what is deployed runs, is moved, upgraded and taken back, and nothing is lost."""

from __future__ import annotations

import importlib
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sage.cluster import changes
from sage.cluster.deployer import Deployer
from sage.cluster.deploying import Deployed
from sage.cluster.status import WorkerStatus
from sage.errors import Conflict
from sage.graph.builder import StreamBuilder
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from tests.chaos.scenario import judge
from tests.integration.cluster.workers import Cluster, fetch, replanned
from tests.support.brokers import ApacheBroker
from tests.support.programs import Program, sage
from tests.support.records import everything, values_of
from tests.support.waiting import wait_until

Make = Callable[..., Cluster]


@pytest.fixture
def make(unique: Callable[[str], str], tmp_path: Path) -> Iterator[Make]:
    """Makes clusters that end with the test."""
    made: list[Cluster] = []

    def new(broker: ApacheBroker, kind: str, guarantee: str, **options: Any) -> Cluster:
        made.append(Cluster(broker, unique("cl"), kind, guarantee, tmp_path, **options))
        return made[-1]

    yield new
    for cluster in made:
        cluster.close()


@pytest.mark.parametrize(("kind", "guarantee"), [("chain", "exactly_once"), ("falter", "at_least_once")])
def test_a_day_in_the_life_of_a_topology(make: Make, three_brokers: ApacheBroker, kind: str, guarantee: str) -> None:
    """Under load: scaled down and up, a worker killed, another told to go, upgraded, rolled back, paused, resumed."""
    cluster = make(three_brokers, kind, guarantee, replicas=3, records=4_000)
    cluster.online(3)
    plan = cluster.plan()
    stages = [stage.name for stage in plan.stages]
    first = cluster.deploy(plan)
    cluster.feed()
    cluster.begun()
    cluster.deployer.scale(cluster.name, dict.fromkeys(stages, 1))
    cluster.settled()
    cluster.deployer.scale(cluster.name, dict.fromkeys(stages, 3))
    cluster.settled()
    cluster.kill(0)
    cluster.end(cluster.workers[1])
    cluster.online(2)
    cluster.settled()
    cluster.join()
    cluster.online(3)
    second = cluster.deploy(replanned(plan, concurrency=4))
    assert second == first + 1
    cluster.goes_on()
    cluster.deployer.rollback(cluster.name, first)
    cluster.settled()
    cluster.goes_on()
    cluster.deployer.pause(cluster.name)
    cluster.settled()
    assert cluster.hosts(stages[0], "paused") == 3
    written, read = cluster.written("out"), cluster.written("in")
    cluster.until(lambda: cluster.written("in") > read + 40, "records come in")
    assert cluster.written("out") == written, "nothing flows while it is paused"
    cluster.deployer.resume(cluster.name)
    cluster.settled()
    cluster.goes_on()
    judge(cluster.reckon(150), cluster)


def test_who_deploys_at_the_same_time_or_comes_back_too_late_harms_nothing_that_runs(
    make: Make, three_brokers: ApacheBroker
) -> None:
    cluster = make(three_brokers, "chain", "exactly_once", replicas=3, records=1_500)
    cluster.online(3)
    plan = cluster.plan()
    cluster.deploy(plan)
    cluster.feed()
    cluster.begun()
    with cluster.deployer.session(cluster.name) as old:
        left = old.pointer
        assert left is not None
        outcomes = _race(cluster, [replanned(plan, concurrency=wanted) for wanted in (3, 5, 7)])
        won = [each for each in outcomes if not isinstance(each, Conflict)]
        assert (len(outcomes), len(won)) == (3, 1), outcomes
        with pytest.raises(Conflict, match="racer"):
            old.point(changes.scale(left, [stage.name for stage in plan.stages], {plan.stages[0].name: 1}))
    cluster.settled()
    pointer = cluster.deployer.look().current(cluster.name)
    assert (pointer, pointer.version) == (won[0].desired, 2)
    assert {each.version for said in cluster.words().values() for each in said} == {2}
    cluster.goes_on()
    judge(cluster.reckon(150), cluster)


def _race(cluster: Cluster, plans: list[Plan]) -> list[Deployed | Conflict]:
    """Everybody deploys upon what all have looked at before."""
    seen = cluster.deployer.propose(plans[0]).expected
    ready = threading.Barrier(len(plans))

    def deploy(number: int) -> Deployed | Conflict:
        deployer = Deployer(cluster.broker.clients(), cluster.topics, who=f"racer{number}@desk")
        ready.wait()
        try:
            return deployer.deploy(plans[number], expected=seen)
        except Conflict as error:
            return error

    with ThreadPoolExecutor(len(plans)) as pool:
        return list(pool.map(deploy, range(len(plans))))


PRICED = "def price(value):\n    return {{**value, 'rate': {rate}}}\n"


def test_code_that_differs_or_can_t_be_imported_is_told_and_touches_nothing_else(
    make: Make, three_brokers: ApacheBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three machines, each with files of its own; the third's are old, and none has what is only on the desk."""
    allowed = [word for module in ("rates_of_all", "rates_of_mine") for word in ("--allow-code", module)]
    cluster = make(three_brokers, "sync", "exactly_once", workers=0, records=400, replicas=3, options=allowed)
    for rate in (2, 2, 1):
        _write(cluster.code_of(len(cluster.workers)) / "rates_of_all.py", PRICED.format(rate=rate))
        cluster.join()
    for module in ("rates_of_all", "rates_of_mine"):
        _write(tmp_path / "desk" / f"{module}.py", PRICED.format(rate=2))
    monkeypatch.syspath_prepend(str(tmp_path / "desk"))
    cluster.online(3)
    cluster.deploy()
    cluster.feed()
    cluster.begun()
    broken, foreign, other = (f"{cluster.name}-{each}" for each in ("broken", "foreign", "other"))

    def shown(name: str) -> str:
        """What the user sees, who asks how it is."""
        with _typed(cluster, tmp_path, "topology", "status", name) as program:
            assert program.wait(60) == 1, program.output
            return program.output

    _deploy_beside(cluster, broken, importlib.import_module("rates_of_mine").price)
    cluster.until(lambda: _kinds(cluster, broken) == ["unready"] * 3, "the module can't be imported")
    assert "no module named rates_of_mine" in shown(broken)
    _deploy_beside(cluster, foreign, json.loads)
    cluster.until(lambda: _kinds(cluster, foreign) == ["refused"] * 3, "the module may not be imported")
    assert "start the worker with --allow-code json" in shown(foreign)
    _deploy_beside(cluster, other, importlib.import_module("rates_of_all").price)
    cluster.until(lambda: _kinds(cluster, other) == ["", "", "incompatible"], "the code differs on one")
    (old,) = [worker for worker, seen in cluster.view.live.items() if seen.topologies[other].checks[0].problems]
    (problem,) = [
        each for each in _sage(cluster, tmp_path, "worker", "describe", old, "-o", "json")["problems"]
        if each["topology"] == other
    ]  # fmt: skip
    assert problem["problems"][0].startswith("rates_of_all:price differs"), problem
    judge(cluster.reckon(), cluster)
    for name in (broken, foreign):
        assert not everything(three_brokers.clients(), f"{name}-out")
    cluster.until(lambda: len(everything(three_brokers.clients(), f"{other}-out")) >= cluster.records, "two work on it")
    priced = values_of(everything(three_brokers.clients(), f"{other}-out"))
    assert sorted(value["id"] for value in priced) == list(range(cluster.records))
    assert {value["rate"] for value in priced} == {2}, "nothing went through the old file"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def _deploy_beside(cluster: Cluster, name: str, work: Callable[[Any], Any]) -> None:
    """One topology more, which reads what the cluster's own one reads."""
    builder = StreamBuilder(name, guarantee="exactly_once")
    builder.from_topic(f"{cluster.name}-in").map(work, name="work").to(f"{name}-out")
    cluster.deployer.deploy(compile_plan(builder.build()))


def _kinds(cluster: Cluster, topology: str) -> list[str]:
    """What the workers found when they checked it."""
    cluster.view.read_to_end()
    said = [seen.topologies[topology] for seen in cluster.view.live.values() if topology in seen.topologies]
    return sorted(check.kind for each in said for check in each.checks)


def test_a_worker_that_freezes_is_replaced_and_when_it_thaws_it_is_shown_again_and_harms_nothing(
    make: Make, three_brokers: ApacheBroker, tmp_path: Path
) -> None:
    cluster = make(three_brokers, "chain", "exactly_once", replicas=3, records=1_500)
    cluster.online(3)
    cluster.deploy()
    cluster.feed()
    cluster.begun()
    frozen = cluster.workers[0]

    def states() -> dict[int, str]:
        return {each["pid"]: each["state"] for each in _sage(cluster, tmp_path, "worker", "list", "-o", "json")}

    cluster.at_work()
    frozen.send_signal(signal.SIGSTOP)
    cluster.online(2)
    assert states() == {worker.pid: "dead" if worker is frozen else "online" for worker in cluster.workers}
    cluster.settled()
    cluster.goes_on()
    frozen.send_signal(signal.SIGCONT)
    cluster.online(3)
    assert states() == {worker.pid: "online" for worker in cluster.workers}
    cluster.settled()
    assert len(cluster.words()) == 3, "it works again"
    cluster.goes_on()
    judge(cluster.reckon(150), cluster)


def test_workers_whose_clocks_are_wrong_are_as_alive_as_the_others(
    make: Make, three_brokers: ApacheBroker, tmp_path: Path
) -> None:
    """A client writes its own clock's time beside each record: of heartbeats the brokers' time counts."""
    cluster = make(three_brokers, "sync", "at_least_once", workers=1)
    cluster.online(1)
    (right,) = cluster.view.live
    now = int(time.time() * 1000)
    producer = three_brokers.clients().producer()
    for worker, said in {"behind": now - 3_600_000, "ahead": now + 3_600_000}.items():
        beat = WorkerStatus(worker)
        producer.produce(cluster.topics.status, beat.encode(), beat.key, timestamp=said)
    assert producer.flush(30) == 0
    producer.close()
    shown = _sage(cluster, tmp_path, "worker", "list", "-o", "json")
    assert {each["worker"]: each["state"] for each in shown} == dict.fromkeys(("ahead", "behind", right), "online")


def test_a_worker_says_how_it_is_and_a_named_one_comes_back_to_its_own(
    make: Make, apache_kafka: ApacheBroker, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = make(apache_kafka, "sync", "at_least_once", workers=0, records=300)
    named = ("--id", "w1", "--label", "disk=large", "--health-port", str(port))
    worker = cluster.start_with(*named)
    cluster.online(1)
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, timeout=30, what="it is ready")
    cluster.deploy()
    cluster.feed()
    cluster.begun()
    assert fetch(port, "/healthz") == (200, "ok\n")
    stage = cluster.plan().stages[0].name
    wanted = f'sage_records_read_total{{topology="{cluster.name}",operator="{stage}"}}'
    wait_until(lambda: wanted in fetch(port, "/metrics")[1], what="its metrics have the stage")
    wait_until(
        lambda: f'kafka_consumergroup_lag{{consumergroup="{cluster.name}.{stage}"' in fetch(port, "/metrics")[1],
        timeout=60, what="its metrics have the lag",
    )  # fmt: skip
    shown = _sage(cluster, tmp_path, "worker", "list", "-o", "json")
    assert [(each["worker"], each["state"], each["labels"]) for each in shown] == [("w1", "online", {"disk": "large"})]
    described = _sage(cluster, tmp_path, "worker", "describe", "w1", "-o", "json")
    assert [each["stage"] for each in described["stages"]] == [stage]
    cluster.end(worker)
    cluster.start_with(*named)
    cluster.settled()
    judge(cluster.reckon(), cluster)


def _sage(cluster: Cluster, folder: Path, *arguments: str) -> Any:
    """What a command of the command line prints as JSON."""
    with _typed(cluster, folder, *arguments) as program:
        assert program.wait(60) == 0, program.output
        return json.loads(program.output)


def _typed(cluster: Cluster, folder: Path, *arguments: str) -> AbstractContextManager[Program]:
    environ = {"SAGE_CONTROL_PREFIX": cluster.topics.prefix}
    return sage(folder, *arguments, "--bootstrap-servers", cluster.broker.bootstrap_servers, environ=environ)


def test_one_command_runs_several_workers_and_ends_them(make: Make, apache_kafka: ApacheBroker, tmp_path: Path) -> None:
    cluster = make(apache_kafka, "sync", "at_least_once", workers=0, records=300)
    several = cluster.start_with("-p2", "--id", "pair", "--label", "disk=large")
    cluster.online(2)
    cluster.deploy()
    cluster.feed()
    cluster.begun()
    shown = _sage(cluster, tmp_path, "worker", "list", "-o", "json")
    assert [(each["worker"], each["labels"]) for each in shown] == [
        ("pair-1", {"disk": "large"}), ("pair-2", {"disk": "large"}),
    ]  # fmt: skip
    judge(cluster.reckon(), cluster)
    cluster.end(several)
    cluster.online(0)


def test_what_workers_and_steps_log_is_in_the_logs_topic(make: Make, apache_kafka: ApacheBroker) -> None:
    from sage.cluster.log_records import LogReader

    cluster = make(apache_kafka, "falter", "at_least_once", workers=1, records=200)
    cluster.online(1)
    cluster.deploy()
    cluster.feed()
    reader = LogReader(apache_kafka.clients(), cluster.topics)
    lines: list[str] = []

    def told() -> bool:
        lines.extend(each.message for each in reader.poll(0.2) if each.topology == cluster.name)
        return any("starts as version 1" in line for line in lines)

    try:
        wait_until(told, timeout=30, what="the start is told")
    finally:
        reader.close()
    judge(cluster.reckon(), cluster)


def test_a_worker_that_can_t_reach_the_brokers_says_so_and_ends(tmp_path: Path) -> None:
    with sage(tmp_path, "worker", "run", "--bootstrap-servers", "127.0.0.1:9") as program:
        assert program.wait(60) == 4, program.output
        assert "127.0.0.1:9" in program.output


@pytest.mark.chaos
def test_workers_that_lose_the_brokers_for_a_minute_go_on(make: Make, three_node_kafka: ApacheBroker) -> None:
    cluster = make(three_node_kafka, "chain", "exactly_once", replicas=3, records=1_500)
    cluster.online(3)
    cluster.deploy()
    cluster.feed()
    cluster.begun()
    kafka = three_node_kafka.cluster
    for node in kafka.nodes:
        kafka.kill(node)
    cluster.pause(60, 60)
    kafka.start_all()
    judge(cluster.reckon(200), cluster)
    cluster.settled()
    assert all(isinstance(worker, subprocess.Popen) and worker.poll() is None for worker in cluster.workers)
