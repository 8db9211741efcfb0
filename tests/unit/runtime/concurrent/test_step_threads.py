"""Blocking code in threads: when its time begins, and what is left of calls that hang."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from sage.runtime.concurrent.step_threads import StepThreads

BRIEF = 0.05


async def call(threads: StepThreads, function: Any, *arguments: Any, seconds: float | None = None) -> Any:
    async with asyncio.timeout(None) as limit:
        return await threads.call(function, arguments, limit, seconds)


def test_a_call_that_waits_for_a_thread_does_not_spend_its_time() -> None:
    async def run() -> Any:
        threads, release = StepThreads("t", 1), threading.Event()
        working = [asyncio.create_task(call(threads, release.wait)) for _ in range(2)]
        waiting = asyncio.create_task(call(threads, str, 7, seconds=BRIEF))
        ended, _ = await asyncio.wait([waiting], timeout=3 * BRIEF)
        assert not ended, "it ended before it had a thread"
        release.set()
        await asyncio.gather(*working)
        result = await waiting
        threads.close()
        return result

    assert asyncio.run(run()) == "7"


def test_calls_that_hang_are_given_up_and_do_not_hold_up_those_after_them(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        threads, release = StepThreads("t", 2), threading.Event()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await call(threads, release.wait, seconds=BRIEF)
        assert await asyncio.gather(*(call(threads, str, number, seconds=10) for number in range(4))) == list("0123")
        release.set()
        threads.close()

    with caplog.at_level(logging.ERROR, "sage.runtime"):
        asyncio.run(run())
    assert ["2 calls that were given up" in record.getMessage() for record in caplog.records] == [True]


def test_a_generator_runs_in_the_thread_and_its_failure_comes_out() -> None:
    def items() -> Any:
        yield threading.current_thread().name
        raise KeyError("x")

    async def run() -> None:
        threads = StepThreads("t", 1)
        with pytest.raises(KeyError, match="x"):
            await call(threads, items, seconds=10)
        threads.close()

    asyncio.run(run())
