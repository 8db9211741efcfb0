"""A topology that is started anew when its files change, and goes on when they are wrong."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sage.errors import InvalidTopology, NotFound
from sage.operations.development import Development, only_topology
from sage.operations.watching import Snapshot


@dataclass
class Process:
    """One that ends when it is asked to, unless it hangs."""

    hangs: bool = False
    code: int | None = None
    asked: list[int] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, sig: int, /) -> None:
        self.asked.append(sig)
        self.code = self.code if self.hangs else 0

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            raise subprocess.TimeoutExpired("sage", timeout or 0)
        return self.code

    def kill(self) -> None:
        self.code = -9


@dataclass
class Project:
    """Files, whether they are valid, and what was started and said."""

    version: int = 1
    valid: bool = True
    hangs: bool = False
    started: list[Process] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def work(self) -> Development:
        return Development(
            start=self._start,
            is_valid=lambda: self.valid,
            take=lambda: Snapshot({Path("rag.yaml"): (self.version, 1)}),
            note=self.said.append,
        )

    def _start(self) -> Process:
        self.started.append(Process(self.hangs))
        return self.started[-1]


def test_a_change_that_has_settled_drains_the_old_one_and_starts_the_new() -> None:
    project = Project()
    work = project.work()
    work.look()
    project.version = 2
    work.look()
    assert len(project.started) == 1, "it may still be written"
    work.look()
    assert [process.asked for process in project.started] == [[signal.SIGTERM], []]
    assert project.said == ["rag.yaml changed; starting again"]
    work.look()
    work.look()
    assert len(project.started) == 2


def test_files_that_go_on_changing_are_waited_for() -> None:
    project = Project()
    work = project.work()
    for version in range(2, 6):
        project.version = version
        work.look()
    assert len(project.started) == 1


def test_a_file_that_is_wrong_leaves_the_old_one_running() -> None:
    project = Project()
    work = project.work()
    project.version, project.valid = 2, False
    work.look()
    work.look()
    assert (len(project.started), project.started[0].asked) == (1, [])
    assert project.said == ["rag.yaml changed; the topology as it was goes on"]
    project.version, project.valid = 3, True
    work.look()
    work.look()
    assert len(project.started) == 2


def test_what_is_wrong_from_the_start_runs_when_it_is_right() -> None:
    project = Project(valid=False)
    work = project.work()
    assert (project.started, project.said) == ([], ["waiting for a change"])
    project.version, project.valid = 2, True
    work.look()
    work.look()
    assert len(project.started) == 1


def test_a_topology_that_ends_by_itself_is_told_and_started_by_the_next_change() -> None:
    project = Project()
    work = project.work()
    project.started[0].code = 3
    work.look()
    work.look()
    assert project.said == ["ended with exit code 3; waiting for a change"]
    project.version = 2
    work.look()
    work.look()
    assert len(project.started) == 2
    assert project.started[0].asked == []


def test_one_that_does_not_drain_is_killed() -> None:
    project = Project(hangs=True)
    work = project.work()
    work.stop()
    assert (project.started[0].asked, project.started[0].code) == ([signal.SIGTERM], -9)
    assert "did not drain within 30 s; killed" in project.said[0]
    work.stop()


def test_the_only_topology_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no topology file in"):
        only_topology(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "broken.yaml").write_text("steps: [\n")
    (tmp_path / "rag.yaml").write_text("name: rag\nsteps: {}\n")
    assert only_topology(tmp_path) == "rag.yaml"
    (tmp_path / "shop.yml").write_text("name: shop\nsteps: {}\n")
    with pytest.raises(InvalidTopology, match=r"name one: rag\.yaml, shop\.yml"):
        only_topology(tmp_path)
