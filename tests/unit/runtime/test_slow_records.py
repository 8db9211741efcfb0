"""Exactly once, synchronous code that takes longer than the broker keeps a transaction open: done again once, not for
ever, whatever came out before it in the same turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.runtime.acting import committed, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at

SLOW = 12.0
"""Seconds: more than ``transaction.timeout.ms``, which SAGE sets to ten."""

BEFORE = 200
FEW = 60


class Work:
    """Code that is quick but for some records, and counts how often it ran for each."""

    def __init__(self, *slow: int) -> None:
        self.bench: Bench | None = None
        self.ran: Counter[int] = Counter()
        self._slow = set(slow)

    def __call__(self, value: int) -> int:
        self.ran[value] += 1
        if value in self._slow:
            assert self.bench is not None
            self.bench.clock.advance_to(self.bench.clock.monotonic() + SLOW)
        return value


def _mapped(work: Work) -> Bench:
    return Bench(lambda s: s.map(work, name="work"), guarantee="exactly_once")


def _careful(work: Work) -> Bench:
    return Bench(lambda s: s.filter(lambda value: work(value) >= 0, name="work"), guarantee="exactly_once")


def _keyed(work: Work) -> Bench:
    def count(value: int, ctx: Any) -> Iterator[int]:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        yield work(value)

    return keyed_bench(count, guarantee="exactly_once")


KINDS: dict[str, Callable[[Work], Bench]] = {"fast": _mapped, "careful": _careful, "keyed": _keyed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slow", [(BEFORE + 40,), (BEFORE + 5, BEFORE + 6, BEFORE + 59), (BEFORE,)])
def test_a_record_that_outlasts_its_transaction_is_run_again_once_and_all_come_out_once(
    kind: str, slow: tuple[int, ...]
) -> None:
    work = Work(*slow)
    bench = work.bench = KINDS[kind](work)
    actor = bench.actor()
    bench.feed(*range(BEFORE), keys=[b"k"] * BEFORE)  # so that it knows how quick they are, and takes many at once
    turn(bench, actor, seconds=0.2, times=20)
    assert len(bench.out()) == BEFORE

    bench.feed(*range(BEFORE, BEFORE + FEW), keys=[b"k"] * FEW)
    turn(bench, actor, seconds=0.2, times=200)

    assert bench.out() == list(range(BEFORE + FEW))
    assert committed(bench) == {at(): BEFORE + FEW}
    assert max(work.ran.values()) <= 2


def test_timers_that_outlast_a_transaction_are_fired_again_once_and_give_their_output_once() -> None:
    work = Work(3, 5)

    def remind(value: int, ctx: Any) -> Iterator[int]:
        ctx.state["n"] = value
        ctx.timer.set("ring", after=1.0)
        yield from ()

    def ring(name: str, ctx: Any) -> Iterator[int]:
        yield work(ctx.state["n"])

    bench = work.bench = keyed_bench(remind, on_timer=ring, guarantee="exactly_once")
    actor = bench.actor()
    bench.feed(*range(8), keys=[b"%d" % number for number in range(8)])
    turn(bench, actor, seconds=0.2, times=200)

    assert sorted(bench.out()) == list(range(8))
    assert max(work.ran.values()) <= 2
