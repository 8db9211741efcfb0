"""Children are watched, started again, told to end, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sage.operations import worker_processes
from sage.operations.worker_processes import WorkerProcesses
from tests.support.waiting import wait_until

DRAINS = """
import os, pathlib, signal, sys, threading
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
signal.signal(signal.SIGINT, lambda *_: ended.set())
here = pathlib.Path({folder!r}) / str(os.getpid())
here.write_text(os.environ.get("SAGE_INSTANCE_ID", "-"))
{more}
while not ended.wait(0.05):
    pass
here.with_suffix(".drained").touch()
"""

Make = Callable[..., WorkerProcesses]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(count, "more code", bounded=...)``: children that wait for SIGTERM."""

    def children(count: int, more: str = "", *, bounded: bool = False, **options: object) -> WorkerProcesses:
        script = DRAINS.format(folder=str(tmp_path), more=more)
        return WorkerProcesses(["-c", script], count, environ=os.environ, bounded=bounded, **options)  # type: ignore[arg-type]

    return children


def in_background(workers: WorkerProcesses) -> tuple[threading.Thread, list[int]]:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(workers.run()), daemon=True)
    thread.start()
    return thread, codes


def started(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == "" and path.read_text()]


def has_started(folder: Path, count: int) -> bool:
    return len(started(folder)) == count


def drained(folder: Path) -> list[Path]:
    return list(folder.glob("*.drained"))


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_reaches_all_and_they_drain(make: Make, tmp_path: Path, asked: int, code: int) -> None:
    workers = make(2, instance="w")
    thread, codes = in_background(workers)
    wait_until(lambda: len(started(tmp_path)) == 2, timeout=20, what="both have started")
    assert sorted(path.read_text() for path in started(tmp_path)) == ["w-1", "w-2"]
    workers.ask(asked)
    thread.join(20)
    assert (codes, len(drained(tmp_path))) == ([code], 2)


def test_a_child_that_is_killed_is_started_again_with_growing_delays(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_processes, "FIRST_DELAY", 0.01)
    said: list[str] = []
    workers = make(2, note=said.append)
    for child in workers._children:
        child.delay = 0.01
    thread, codes = in_background(workers)
    for lives in (2, 3):
        wait_until(partial(has_started, tmp_path, lives), timeout=20, what="they have started")
        victim = workers._children[0].process
        assert victim is not None
        victim.kill()
    wait_until(lambda: len(started(tmp_path)) == 4, timeout=20, what="the third life")
    assert said[0].startswith("process 1 was killed by SIGKILL; it is started again in")
    assert [child.delay for child in workers._children] == [0.04, 0.01]
    workers.ask(signal.SIGTERM)
    thread.join(20)
    assert codes == [0]


def test_a_child_that_fails_by_itself_ends_them_all_with_its_code(make: Make, tmp_path: Path) -> None:
    more = "if os.environ['SAGE_INSTANCE_ID'] == 'w-2': sys.exit(3)"
    assert make(3, more, instance="w").run() == 3


def test_a_bounded_run_is_over_when_one_has_found_it_complete(make: Make, tmp_path: Path) -> None:
    more = (
        "if os.environ['SAGE_INSTANCE_ID'] == 'w-1':\n"
        f"    while len([p for p in pathlib.Path({str(tmp_path)!r}).iterdir() if not p.suffix]) < 3: ended.wait(0.02)\n"
        "    sys.exit(0)"
    )
    assert make(3, more, bounded=True, instance="w").run() == 0
    assert len(drained(tmp_path)) == 2


def test_a_kill_in_a_bounded_run_is_reported_and_the_others_go_on(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    more = (
        "if os.environ['SAGE_INSTANCE_ID'] == 'w-1': os.kill(os.getpid(), signal.SIGKILL)\n"
        f"while not pathlib.Path({str(tmp_path / 'go.on')!r}).exists(): ended.wait(0.02)\n"
        "sys.exit(0)"
    )
    workers = make(2, more, bounded=True, instance="w", note=said.append)
    thread, codes = in_background(workers)
    wait_until(lambda: said, timeout=20, what="the kill was noticed")
    (tmp_path / "go.on").touch()
    thread.join(20)
    assert (said, codes) == (["process 1 was killed by SIGKILL; the others take over"], [1])


def test_a_run_out_of_time_is_5(make: Make) -> None:
    assert make(2, "sys.exit(5)", bounded=True).run() == 5


def test_children_drain_when_their_parent_is_killed(tmp_path: Path) -> None:
    child = DRAINS.format(
        folder=str(tmp_path),
        more="from sage.operations.worker_processes import end_with_parent; end_with_parent()",
    )
    parent = (
        "import os; from sage.operations.worker_processes import WorkerProcesses\n"
        f"WorkerProcesses(['-c', {child!r}], 2, environ=os.environ, bounded=False).run()"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_until(lambda: len(started(tmp_path)) == 2, timeout=20, what="both have started")
        process.kill()
    wait_until(lambda: len(drained(tmp_path)) == 2, timeout=20, what="both have drained")


def test_an_error_in_the_parent_leaves_no_child(make: Make, tmp_path: Path) -> None:
    def fails(text: str) -> None:
        raise RuntimeError(text)

    more = (
        "from sage.operations.worker_processes import end_with_parent; end_with_parent()\n"
        "if os.environ['SAGE_INSTANCE_ID'] == 'w-1': os.kill(os.getpid(), signal.SIGKILL)"
    )
    workers = make(2, more, bounded=True, instance="w", note=fails)
    with pytest.raises(RuntimeError, match="was killed by SIGKILL"):
        workers.run()
    assert all(child.process is not None and child.process.poll() is not None for child in workers._children)
