"""A topology in this process, from the fluent program to its end, over a broker in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sage import LocalEnvironment, Source
from sage.cluster.deployer import Deployer
from sage.cluster.names import ControlTopics
from sage.errors import Conflict, InvalidTopology, NotFound, SageError
from sage.graph.builder import StreamBuilder
from sage.ports import KafkaClients, TopicSpec
from sage.runtime.runs.runner import TopologyRunner
from sage.testing import InMemoryClients
from tests.support.waiting import wait_until
from tests.unit.cluster.worker.steps import plus_one, times_ten

MakeEnvironment = Callable[..., LocalEnvironment]


class InMemoryBrokers:
    """What finding brokers gives, with a broker of this test's own."""

    control_topics = ControlTopics("test")

    def __init__(self) -> None:
        self.broker = InMemoryClients()
        self.asked: list[tuple[Any, ...]] = []
        self.config: dict[str, Any] = {}

    def find(self, flag: str | None, data_dir: Path, *rest: Any, **options: Any) -> InMemoryBrokers:
        self.asked.append((flag, data_dir))
        return self

    def clients(self, config: dict[str, Any], own: dict[str, Any]) -> KafkaClients:
        self.config = {**config, **own}
        return cast(KafkaClients, self.broker)


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> InMemoryBrokers:
    made = InMemoryBrokers()
    monkeypatch.setattr("sage.wiring.brokers.find_brokers", made.find)
    return made


@pytest.fixture
def environment(brokers: InMemoryBrokers, tmp_path: Path) -> Iterator[MakeEnvironment]:
    made: list[LocalEnvironment] = []

    def make(name: str = "t", **options: Any) -> LocalEnvironment:
        made.append(LocalEnvironment(name, data_dir=tmp_path / ".sage", **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_a_program_runs_from_its_collection_to_its_list(environment: MakeEnvironment) -> None:
    env = environment()
    results = env.from_collection([3, 1, 2]).map(lambda value: value * 10).filter(lambda value: value > 10).collect()
    assert results == []
    report = env.run_once(30)
    assert results == [30, 20]
    assert (report.complete, report.read, report.dead) == (True, 3, 0)


def test_times_are_numbers_of_seconds_or_durations_as_text(environment: MakeEnvironment) -> None:
    env = environment()
    values = env.from_collection([1, 2]).collect()
    assert env.run_once("20s").complete
    env.stop("10s")
    assert values == [1, 2]
    for call in (env.run_once, env.stop):
        for wrong in ("soon", -1, [1]):
            with pytest.raises(InvalidTopology, match=r"^t: timeout: .* is not a duration; write seconds"):
                call(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda env: env().set_memory("embedded"), "memory must be a mapping of settings; found 'embedded'"),
        (lambda env: env(kafka="x"), "kafka must be a mapping of properties; found 'x'"),
    ],
)
def test_settings_that_are_no_mapping_are_told(environment: MakeEnvironment, make: Any, message: str) -> None:
    with pytest.raises(InvalidTopology, match=message):
        make(environment)


def test_the_steps_of_a_program_can_be_said_one_by_one(environment: MakeEnvironment) -> None:
    env = environment()
    results = env.from_collection(["a"]).map(str.upper).collect()
    env.submit()
    assert results == []  # sources wait
    env.run_once(30)
    env.stop()
    env.stop()
    assert results == ["A"]
    env.close()
    env.close()


def test_every_kind_of_step_works_together(environment: MakeEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    env = environment()

    async def shout(word: str) -> str:
        return word.upper()

    words = env.from_collection(["b a", "c", "a"]).flatmap(lambda line: line.split())
    branches = words.route({"vowel": lambda word: word in "aeiou"}, default="other")
    vowels = branches.vowel.map(shout)
    others = branches.other.map_batches(lambda batch: [word * 2 for word in batch], max_size=8, max_wait=0.01)
    everything = vowels.union(others).key_by(lambda word: word)
    results = everything.collect()
    everything.to("words")
    everything.print()
    env.run_once(30)
    assert sorted(results) == ["A", "A", "bb", "cc"]
    topic = sorted(str(message.value()) for message in cast(Any, env.clients).messages("words"))
    assert topic == ["b'\"A\"'", "b'\"A\"'", "b'\"bb\"'", "b'\"cc\"'"]
    assert sorted(capsys.readouterr().out.split()) == ["A", "A", "bb", "cc"]


def test_a_run_begins_afresh_unless_it_is_to_resume(environment: MakeEnvironment) -> None:
    for resume, expected in ((False, [1, 2]), (False, [1, 2]), (True, [])):
        env = environment(resume=resume)
        results = env.from_collection([1, 2]).collect()
        env.run_once(30)
        env.close()
        assert results == expected


def test_the_same_plan_again_changes_nothing_and_another_one_starts_anew(environment: MakeEnvironment) -> None:
    env = environment()
    stream = env.from_collection([1, 2])
    first = stream.map(lambda value: value, name="same").collect(name="first")
    env.submit()
    running = env._run
    env.submit()
    assert env._run is running
    second = stream.map(lambda value: -value, name="other").collect(name="second")
    env.run_once(30)
    assert env._run is not running
    assert (first, second) == ([1, 2], [-1, -2])


def test_a_run_that_failed_is_started_again_by_the_next(environment: MakeEnvironment) -> None:
    there: set[str] = set()

    def look_up(value: int) -> int:
        if not there:
            raise NotFound("no collection 'handbook'")
        return value

    env = environment(resume=True)
    results = env.from_collection([1, 2]).map(look_up, name="look-up").collect()
    with pytest.raises(NotFound, match="no collection 'handbook'"):
        env.run_once(30)
    there.add("handbook")
    assert env.run_once(30).complete
    assert results == [1, 2]


def test_streaming_goes_on_until_it_is_stopped_from_elsewhere(environment: MakeEnvironment) -> None:
    env = environment()
    results = env.from_collection([1, 2]).collect()
    failures: list[BaseException] = []

    def stream() -> None:
        try:
            env.run_streaming()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    wait_until(lambda: results == [1, 2])
    assert thread.is_alive()
    env.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def test_streaming_ends_with_the_error_that_stops_a_step(environment: MakeEnvironment) -> None:
    def refuse(value: int) -> int:
        raise NotFound("no model 'x'")

    env = environment()
    env.from_collection([1]).map(refuse, name="call").collect()
    with pytest.raises(NotFound, match=r't step "call" at t\.collection-0@0: no model'):
        env.run_streaming()


def test_streaming_in_the_background_gives_control_back(environment: MakeEnvironment) -> None:
    with environment() as env:
        results = env.from_collection([1]).collect()
        env.run_streaming(block=False)
        wait_until(lambda: results == [1])
    assert env._run is None


# ----------------------------------------------------------------------------------------- description


def test_the_plan_asks_the_sources_for_their_parts(environment: MakeEnvironment) -> None:
    class Parts(Source[int]):
        def tasks(self) -> tuple[str, ...]:
            return ("a", "b")

    env = environment()
    env.from_source(Parts, name="parts").map(abs)
    assert env.plan().source_tasks == {"parts": ("a", "b")}
    assert "abs" in env.explain()
    assert env.topology.by_name["parts"].kind == "source"


def test_a_topology_that_cannot_run_is_refused_before_anything_is_started(
    environment: MakeEnvironment, brokers: InMemoryBrokers
) -> None:
    with pytest.raises(InvalidTopology):
        environment("empty").submit()
    assert brokers.asked == []


def test_building_a_program_and_planning_it_starts_nothing(
    environment: MakeEnvironment, brokers: InMemoryBrokers, tmp_path: Path
) -> None:
    env = environment()
    env.from_collection([1]).map(abs).collect()
    env.plan()
    env.explain()
    assert brokers.asked == []
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_command_line_win_over_the_programs(
    environment: MakeEnvironment, brokers: InMemoryBrokers, tmp_path: Path
) -> None:
    env = environment(bootstrap_servers="program:9092", kafka={"linger.ms": 5, "client.id": "program"})
    env.from_collection([1]).collect()
    env.redirect(bootstrap_servers="flag:9092", data_dir=tmp_path / "other", kafka={"client.id": "flag"})
    env.run_once(30)
    assert brokers.asked == [("flag:9092", tmp_path / "other")]
    assert brokers.config == {"linger.ms": 5, "client.id": "flag"}


def test_options_that_are_not_given_leave_the_programs(environment: MakeEnvironment, brokers: InMemoryBrokers) -> None:
    env = environment(bootstrap_servers="program:9092", resume=True)
    results = env.from_collection([1]).collect()
    env.redirect()
    env.run_once(30)
    env.stop()
    env.run_once(30)
    assert brokers.asked[0][0] == "program:9092"
    assert results == [1]


def test_an_environment_of_a_topology_that_is_there_already_runs_it(brokers: InMemoryBrokers, tmp_path: Path) -> None:
    builder = StreamBuilder("t", kafka={"linger.ms": 3})
    results = builder.from_collection([1, 2]).map(lambda value: value + 1, name="more").collect()
    topology = builder.build()
    with LocalEnvironment.of(topology, data_dir=tmp_path / ".sage") as env:
        assert env.topology is topology
        assert (env.name, env.guarantee) == ("t", "at_least_once")
        env.run_once(30)
    assert results == [2, 3]
    assert brokers.config == {"linger.ms": 3}


def test_memory_is_there_when_the_topology_runs(environment: MakeEnvironment) -> None:
    env = environment()
    env.set_memory({"uri": "http://localhost:1", "embedding": {"model": "mock/8"}})
    env.from_collection([1]).collect()
    assert env.topology.memory == {"uri": "http://localhost:1", "embedding": {"model": "mock/8"}}
    with pytest.raises(SageError, match=r"submit\(\) first"):
        _ = env.memory_manager
    env.submit()
    assert env.memory_manager is env.memory_manager


def test_a_plan_that_is_another_than_the_deployed_one_of_its_name_does_not_join_its_groups(
    environment: MakeEnvironment, brokers: InMemoryBrokers
) -> None:
    def wired(function: Any) -> LocalEnvironment:
        env = environment()
        env.from_topic("in").map(function, name="step").to("out")
        return env

    brokers.broker.admin().create([TopicSpec("in")])
    deployer = Deployer(brokers.broker, brokers.control_topics)
    deployer.deploy(wired(times_ten).plan())
    with pytest.raises(Conflict, match=r"version 1 is deployed.*is another plan"):
        wired(plus_one).submit()
    wired(times_ten).submit()
    deployer.stop("t")
    wired(plus_one).submit()


def test_a_start_that_is_interrupted_leaves_nobody_in_a_group(
    environment: MakeEnvironment, brokers: InMemoryBrokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = brokers.broker.admin()

    def interrupted(self: TopologyRunner) -> None:
        wait_until(lambda: admin.members("t.first"), what="the first stage has joined its group")
        raise KeyboardInterrupt

    monkeypatch.setattr(TopologyRunner, "_keep_house", interrupted)
    env = environment()
    env.from_collection([1]).key_by(lambda value: value, name="first").map(str, name="second").collect()
    with pytest.raises(KeyboardInterrupt):
        env.submit()
    env.stop()
    assert [group for group in admin.list_groups() if admin.members(group)] == []
