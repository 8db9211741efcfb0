"""A try's time-out stands still while its results wait for the broker."""

from __future__ import annotations

import asyncio

import pytest

from sage.runtime.journal import TryTime
from tests.unit.runtime.journal.writing import run


async def one_try(*, waits: float, works: float, limit: float | None = 5.0) -> None:
    """A try that works, waits for the broker, and works as long again."""
    time = TryTime()
    async with asyncio.timeout(limit) as timeout:
        time.begin(timeout)
        await asyncio.sleep(works)
        with time.stopped():
            await asyncio.sleep(waits)
        await asyncio.sleep(works)


def test_a_wait_for_the_broker_costs_none_of_it() -> None:
    run(one_try(waits=600, works=2.4))


def test_the_work_around_it_counts_as_before() -> None:
    with pytest.raises(TimeoutError):
        run(one_try(waits=600, works=2.6))


def test_without_a_limit_there_is_nothing_to_stop() -> None:
    run(one_try(waits=600, works=600, limit=None))


def test_waits_that_overlap_end_with_the_last_one() -> None:
    async def go() -> None:
        time = TryTime()

        async def wait(seconds: float) -> None:
            with time.stopped():
                await asyncio.sleep(seconds)

        async with asyncio.timeout(5) as timeout:
            time.begin(timeout)
            await asyncio.gather(wait(10), wait(20), wait(30))
            await asyncio.sleep(4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5) as timeout:
                time.begin(timeout)
                await asyncio.gather(wait(10), asyncio.sleep(16))
            raise AssertionError("the sleep beside the wait is work")

    run(go())


def test_a_wait_that_outlives_its_try_is_nobodys_business() -> None:
    async def go() -> None:
        time = TryTime()

        async def wait() -> None:
            with time.stopped():
                await asyncio.sleep(10)

        async with asyncio.timeout(5) as timeout:
            time.begin(timeout)
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(1)
        await waiting

    run(go())
