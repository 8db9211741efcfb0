"""A program that deploys: its own sources and lists stay with it, everything else runs on the workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import RemoteEnvironment
from sage.cluster.worker.checks import Policy
from sage.errors import InvalidTopology, NotFound, NotImportable, Unreachable
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import TOPICS, Town
from tests.unit.cluster.worker.town import town as make_town


@pytest.fixture
def town() -> Iterator[Town]:
    yield from make_town()


def environment(town: Town, folder: Path, name: str = "t", **options: Any) -> RemoteEnvironment:
    env = RemoteEnvironment(name, data_dir=folder, control_prefix=TOPICS.prefix, **options)
    env._clients = town.clients
    return env


def test_the_programs_own_ends_run_here_and_the_rest_on_the_workers(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    with environment(town, tmp_path) as env:
        found = env.from_collection([1, 2, 3]).map(steps.times_ten, name="work").collect()
        report = env.run_once(timeout=30)
        assert sorted(found) == [10, 20, 30]
        assert report.complete
        assert town.states("work") == {"a": (1, "running")}
        assert set(town.said()["a"]) == {"work"}, "a worker hosts nothing of the program's own"
    assert town.deployer.look().current("t").state == "running", "what was deployed goes on"


def test_the_same_program_again_gives_the_same_and_deploys_nothing(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    results = []
    for _ in range(2):
        with environment(town, tmp_path) as env:
            found = env.from_collection([1, 2, 3]).map(steps.times_ten, name="work").collect()
            env.submit()
            env.submit()
            env.run_once(timeout=30)
            results.append(sorted(found))
    assert results == [[10, 20, 30]] * 2
    assert town.deployer.look().versions("t") == [1]


def test_another_version_of_the_program_replaces_what_runs(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    for function, wanted in ((steps.times_ten, [10]), (steps.times_hundred, [100])):
        with environment(town, tmp_path) as env:
            found = env.from_collection([1]).map(function, name="work").collect()
            env.run_once(timeout=30)
            assert found == wanted
    assert town.deployer.look().current("t").version == 2


def test_code_that_workers_cannot_import_is_refused_before_anything_is_deployed(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    env = environment(town, tmp_path)
    env.from_collection([1]).map(lambda value: value, name="clean").collect()
    with pytest.raises(NotImportable, match=r"workers cannot import a lambda.*Move it to a module. \[SAGE401\]"):
        env.submit()
    env.close()
    assert town.deployer.look().pointers == {}


def test_what_no_worker_may_run_is_told_with_the_worker(town: Town, tmp_path: Path) -> None:
    town.worker("a", policy=Policy())
    with environment(town, tmp_path) as env:
        env.from_collection([1]).map(steps.times_ten, name="work").collect()
        with pytest.raises(InvalidTopology, match=r"--allow-code.*on worker a"):
            env.submit()
    assert town.deployer.look().pointers == {}


def test_without_a_worker_it_says_how_to_start_one(town: Town, tmp_path: Path) -> None:
    with environment(town, tmp_path, wait=0.5) as env:
        env.from_collection([1]).map(steps.times_ten, name="work").collect()
        with pytest.raises(NotFound, match="sage worker run"):
            env.submit()


def test_a_source_on_workers_has_no_end_to_wait_for(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    with environment(town, tmp_path) as env:
        env.from_source(steps.Numbers, name="numbers").map(steps.times_ten, name="work").to("out")
        with pytest.raises(InvalidTopology, match="numbers runs on workers, for ever"):
            env.run_once(timeout=5)


def test_a_programs_source_and_one_on_workers_share_a_topology(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    steps.Numbers.limit = 4
    with environment(town, tmp_path) as env:
        mine = env.from_collection([100], name="mine")
        theirs = env.from_source(steps.Numbers, name="numbers")
        found = mine.union(theirs).map(steps.times_ten, name="work").collect()
        env.run_streaming(block=False)
        wait_until(lambda: sorted(found) == [0, 10, 20, 30, 1000], what="both sources gave all")
    steps.Numbers.limit = 0


def test_a_list_that_reads_something_else_does_not_hold_a_change_up(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    with environment(town, tmp_path) as env:
        env.from_collection([1]).map(steps.times_ten, name="work").collect(name="found")
        env.run_once(timeout=30)
    with environment(town, tmp_path) as env:
        found = (
            env.from_collection([1]).map(steps.times_ten, name="work").map(steps.plus_one, name="more", partitions=1)
        ).collect(name="found")
        env.run_once(timeout=30)
        assert found == [11]


def test_brokers_are_found_and_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("SAGE_CONFIG", str(tmp_path / "none.yaml"))
    env = RemoteEnvironment("t", data_dir=tmp_path)
    env.from_collection([1]).map(steps.times_ten, name="work").collect()
    with pytest.raises(Unreachable, match="no broker is named"):
        env.submit()
    assert list(tmp_path.iterdir()) == []
