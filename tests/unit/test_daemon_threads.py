"""Threads that keep no process alive: how many there are, and what becomes of calls."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from sage.daemon_threads import DaemonThreads
from tests.support.waiting import wait_until

HANGING = """
import threading
from sage.daemon_threads import DaemonThreads
begun = threading.Event()
threads = DaemonThreads(1, "t")
threads.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
raise SystemExit(7)
"""


def test_a_call_that_never_returns_keeps_no_process_from_ending() -> None:
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=30, check=False).returncode == 7


def test_results_and_failures_come_out() -> None:
    threads = DaemonThreads(2, "t")
    assert [future.result(10) for future in [threads.submit(pow, 2, n) for n in range(20)]] == [2**n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(10)
    assert threads.submit(int, "12", base=3).result(10) == 5
    threads.shutdown()


def test_there_are_no_more_threads_than_asked_for_and_idle_ones_are_used_again() -> None:
    threads, release = DaemonThreads(3, "few"), threading.Event()
    names: set[str] = set()

    def work() -> None:
        names.add(threading.current_thread().name)
        release.wait(10)

    waiting = [threads.submit(work) for _ in range(9)]
    wait_until(lambda: len(names) == 3, what="three are at work")
    release.set()
    for future in waiting:
        future.result(10)
    assert names == {"few_0", "few_1", "few_2"}
    threads.shutdown()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("few_")], what="they have ended")

    one_by_one = DaemonThreads(3, "one")
    assert {one_by_one.submit(_name).result(10) for _ in range(200)} == {"one_0"}
    one_by_one.shutdown()


def _name() -> str:
    return threading.current_thread().name


def test_after_the_shutdown_nothing_is_begun() -> None:
    threads, release, begun = DaemonThreads(1, "t"), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return release.wait(10)

    working = threads.submit(work)
    assert begun.wait(10)
    never = threads.submit(lambda: pytest.fail("it was dropped"))
    threads.shutdown(cancel_futures=True)
    assert never.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(lambda: None)
    release.set()
    assert working.result(10)
