"""The processes of a measured run: watched, and gone with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.errors import SageError
from sage.operations.measuring.workers import Workers
from tests.support.waiting import wait_until

WAITS = """
import pathlib, signal, sys, threading, os
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
pathlib.Path({folder!r}, str(os.getpid())).touch()
ended.wait()
"""

Make = Callable[..., Workers]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def workers(count: int, script: str = WAITS) -> Workers:
        return Workers(["-c", script.format(folder=str(tmp_path))], count, os.environ, lambda text: None)

    return workers


def all_listen(folder: Path, count: int) -> bool:
    return len(list(folder.iterdir())) == count


def test_they_live_as_long_as_the_block(make: Make, tmp_path: Path) -> None:
    with make(2) as workers:
        wait_until(lambda: all_listen(tmp_path, 2), what="both have started")
        pids = workers.pids
        workers.check()
        assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_one_that_was_killed_is_noticed_though_others_live(make: Make, tmp_path: Path) -> None:
    with make(2) as workers:
        wait_until(lambda: all_listen(tmp_path, 2), what="both have started")
        workers.check()
        os.kill(workers.pids[0], signal.SIGKILL)
        wait_until(lambda: len(workers.pids) == 1, what="it is missed")
        with pytest.raises(SageError, match="a worker process ended"):
            workers.check()


def test_the_exit_code_of_one_that_ended_by_itself_is_the_runs(make: Make) -> None:
    with make(1, "raise SystemExit(3)") as workers:

        def ended() -> SageError | None:
            try:
                workers.check()
            except SageError as error:
                return error
            return None

        error = wait_until(ended, what="it has ended")
        assert error is not None
        assert error.exit_code == 3
