"""A program that deploys: its own sources and lists stay with it, everything else runs on the workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import RemoteEnvironment
from sage.cluster.worker.checks import Policy
from sage.errors import InvalidTopology, NotFound, NotImportable, Unreachable
from sage_connectors import FileSink, FileSource, TerminalSink
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import TOPICS, Town
from tests.unit.cluster.worker.town import town as make_town
from tests.unit.environments import functions


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


def test_files_and_the_terminal_are_those_of_the_program(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    town.worker("a")
    (tmp_path / "in.txt").write_text("one\ntwo\n", encoding="utf-8")
    with environment(town, tmp_path) as env:
        lines = env.from_source(FileSource, {"path": str(tmp_path / "in.txt")}, name="read")
        work = lines.map(functions.twice, name="work")
        work.sink(FileSink, {"path": str(tmp_path / "out.txt"), "format": "lines"}, name="written")
        work.sink(TerminalSink, {"format": "jsonl"}, name="shown")
        report = env.run_once(timeout=30)
    assert report.complete
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines() == ["oneone", "twotwo"]
    assert capsys.readouterr().out.splitlines() == ['"oneone"', '"twotwo"']
    assert set(town.said()["a"]) == {"work"}
    assert town.deployer.look().deployment("t", 1).caller == ("read", "written", "shown")


def test_the_report_counts_all_steps_wherever_they_run_and_every_dead_letter(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    with environment(town, tmp_path) as env:
        given = env.from_collection([1, -1, 2, -2, 3], name="given")
        found = given.map(functions.above_nothing, name="work").collect(name="found")
        report = env.run_once(timeout=30)
        again = env.run_once(timeout=30)
    assert sorted(found) == [1, 2, 3]
    assert (report.complete, report.read, report.delivered, report.dead_letters) == (True, 5, 3, 2)
    counted = {name: (step.read, step.written, step.dead) for name, step in report.steps.items()}
    assert counted == {"given": (5, 5, 0), "work": (5, 3, 2), "found": (3, 3, 0)}
    assert list(counted) == ["given", "work", "found"]
    assert (again.complete, again.read, again.dead_letters) == (True, 0, 0), "each report is of its run alone"
    assert {name: (step.read, step.written, step.dead) for name, step in again.steps.items()} == dict.fromkeys(
        counted, (0, 0, 0)
    )


def test_what_workers_write_to_a_topic_is_delivered_and_retries_are_theirs(town: Town, tmp_path: Path) -> None:
    functions.tried.clear()
    town.worker("a")
    with environment(town, tmp_path) as env:
        given = env.from_collection([1, 2, 3], name="given")
        given.map(functions.fails_first, name="work", retry={"attempts": 3, "backoff": 0.01}).to("out")
        report = env.run_once(timeout=30)
    assert (report.complete, report.read, report.delivered, report.retried) == (True, 3, 3, 3)


def test_a_run_whose_time_is_up_says_what_it_waited_for_and_goes_on(town: Town, tmp_path: Path) -> None:
    town.worker("a")
    steps.Waiting.goes_on.clear()
    try:
        with environment(town, tmp_path) as env:
            found = env.from_collection([1, 2]).map(steps.Waiting, name="work").collect()
            env.submit()
            late = env.run_once(timeout=0.5)
            assert (late.complete, late.delivered, found) == (False, 0, [])
            assert late.seconds < 10, "it waits no longer than it was told to"
            assert "work" in late.waiting_for
            assert "not complete" in str(late)
            steps.Waiting.goes_on.set()
            report = env.run_once(timeout=30)
            assert (report.complete, report.delivered, sorted(found)) == (True, 2, [1, 2])
    finally:
        steps.Waiting.goes_on.set()


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
