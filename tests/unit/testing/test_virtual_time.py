"""A clock turned by hand, and a loop that lives by it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.testing.virtual_time import START_MS, ManualClock, NeverEnds, VirtualBridge, VirtualLoop


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def loop(clock: ManualClock) -> Iterator[VirtualLoop]:
    made = VirtualLoop(clock)
    yield made
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.run_until_idle()
    made.close()


def test_a_clock_moves_only_when_it_is_turned(clock: ManualClock) -> None:
    assert (clock.monotonic(), clock.now_ms()) == (0.0, START_MS)
    clock.advance("2m")
    clock.advance(0.5)
    assert (clock.monotonic(), clock.now_ms()) == (120.5, START_MS + 120_500)
    clock.advance_to(100)
    assert clock.monotonic() == 120.5
    with pytest.raises(ValueError, match="is not a duration"):
        clock.advance(-1)


def test_waiting_lets_time_pass_unless_the_event_is_set(clock: ManualClock) -> None:
    event = threading.Event()
    assert clock.wait(event, 30) is False
    assert clock.monotonic() == 30
    event.set()
    assert clock.wait(event, 30) is True
    assert clock.monotonic() == 30


def test_hours_of_sleep_take_no_time(clock: ManualClock, loop: VirtualLoop) -> None:
    async def sleepy() -> str:
        await asyncio.sleep(3_600)
        async with asyncio.timeout(60):
            await asyncio.sleep(30)
        return "awake"

    started = time.monotonic()
    assert loop.run_until_complete(sleepy()) == "awake"
    assert clock.monotonic() == pytest.approx(3_630)
    assert time.monotonic() - started < 5


def test_a_time_out_comes_due_in_virtual_time(clock: ManualClock, loop: VirtualLoop) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(5):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(impatient())
    assert clock.monotonic() == pytest.approx(5)


def test_idle_is_when_nothing_is_ready_and_says_what_is_due_next(clock: ManualClock, loop: VirtualLoop) -> None:
    seen: list[str] = []
    assert loop.run_until_idle() is False
    loop.call_soon(lambda: loop.call_soon(seen.append, "second"))
    loop.call_later(3, seen.append, "later")
    assert loop.run_until_idle() is True
    assert seen == ["second"]
    assert loop.next_timer == pytest.approx(3)
    assert loop.run_until_idle() is False
    clock.advance(3)
    loop.run_until_idle()
    assert (seen, loop.next_timer) == (["second", "later"], None)


def test_awaiting_what_nothing_can_bring_about_is_an_error_and_no_hang(loop: VirtualLoop) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NeverEnds):
        loop.run_until_complete(forever())


def test_threads_are_none_and_their_results_and_errors_come_back(loop: VirtualLoop) -> None:
    def fail() -> None:
        raise KeyError("x")

    async def both() -> str:
        with pytest.raises(KeyError):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert loop.run_until_complete(both()) == threading.current_thread().name


def test_what_is_readable_is_not_forgotten(loop: VirtualLoop) -> None:
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []
    with ours, theirs:
        loop.add_reader(ours, lambda: seen.append(ours.recv(10)))
        assert loop.run_until_idle() is False
        theirs.send(b"hello")
        assert loop.run_until_idle() is True
        loop.remove_reader(ours)
    assert seen == [b"hello"]


def test_the_bridge_calls_and_queues_on_one_thread(clock: ManualClock, loop: VirtualLoop) -> None:
    bridge, seen = VirtualBridge(loop), list[str]()

    async def work() -> int:
        await asyncio.sleep(1)
        return 7

    bridge.soon(seen.append, "soon")
    assert seen == []
    assert bridge.call(work()) == 7
    assert seen == ["soon"]
    assert bridge.loop is loop


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0, 1e9))
def test_timers_fire_in_the_order_of_their_times_however_late_it_is(delays: list[float], start: float) -> None:
    clock = ManualClock()
    clock.advance(start)
    loop, fired = VirtualLoop(clock), list[float]()
    for delay in delays:
        loop.call_later(delay, fired.append, delay)

    async def wait() -> None:
        await asyncio.sleep(2e6)

    try:
        loop.run_until_complete(wait())
    finally:
        loop.close()
    assert len(fired) == len(delays)
    assert all(later >= earlier - 1e-3 for earlier, later in pairwise(fired))
