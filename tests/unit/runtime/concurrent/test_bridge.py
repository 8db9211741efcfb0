"""The way from a consumer's thread to the loop."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sage.runtime.concurrent.bridge import LoopThread
from tests.support.waiting import wait_until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


def test_a_call_waits_for_its_result_and_gives_its_error(loop: LoopThread) -> None:
    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("x")

    assert loop.call(name()) == "sage-loop"
    with pytest.raises(KeyError):
        loop.call(fail())


def test_what_is_asked_for_is_done_in_the_order_of_asking(loop: LoopThread) -> None:
    seen: list[int] = []

    async def last() -> list[int]:
        return list(seen)

    for number in range(100):
        loop.soon(seen.append, number)
    assert loop.call(last()) == list(range(100))


def test_closing_cancels_what_is_left_and_ends_the_thread() -> None:
    loop, cancelled = LoopThread("left"), threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    tasks: list[asyncio.Task[None]] = []
    loop.soon(lambda: tasks.append(loop.loop.create_task(forever())))
    wait_until(lambda: tasks)
    loop.close()
    assert cancelled.is_set()
    assert loop.loop.is_closed()
    assert not [thread for thread in threading.enumerate() if thread.name == "left"]
    loop.close()


def test_a_call_in_a_thread_that_never_returns_keeps_no_process_from_ending() -> None:
    code = """
import asyncio, threading
from sage.runtime.concurrent.bridge import LoopThread
begun, loop = threading.Event(), LoopThread()
loop.soon(lambda: asyncio.ensure_future(asyncio.to_thread(lambda: (begun.set(), threading.Event().wait()))))
begun.wait()
loop.close()
raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 7


@pytest.mark.filterwarnings("error")
def test_what_comes_after_the_end_is_refused_and_not_forgotten() -> None:
    async def late() -> None: ...

    loop = LoopThread()
    loop.close()
    work = late()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call(work)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED
