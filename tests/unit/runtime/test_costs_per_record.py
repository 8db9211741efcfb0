"""What a record costs on the synchronous way, in calls that are counted and not in seconds: one decode, one encode,
one produce; no task, no copy, no other thread. Per batch more may be done."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import orjson
import pytest

from sage.runtime.actors.actor import Actor
from tests.unit.runtime.acting import committed, counting, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at

RECORDS = 400
NEVER_PER_RECORD = frozenset(
    {"asyncio", "threading", "concurrent", "copy", "queue", "logging", "pydantic", "contextvars"}
)


class Counts:
    """How often each of these was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        for module, name in ((orjson, "loads"), (orjson, "dumps"), (copy, "copy"), (copy, "deepcopy")):
            monkeypatch.setattr(module, name, self._counted(name, getattr(module, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return function(*arguments, **options)

        return counted


@contextmanager
def called_by_the_runtime() -> Iterator[Counter[str]]:
    """Dotted name of Python code -> how often the runtime has entered it meanwhile."""
    found: Counter[str] = Counter()

    def entered(frame: FrameType, event: str, _: Any) -> None:
        caller = frame.f_back
        if event == "call" and caller is not None and caller.f_globals.get("__name__", "").startswith("sage.runtime"):
            found[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"] += 1

    sys.setprofile(entered)
    try:
        yield found
    finally:
        sys.setprofile(None)


def go(bench: Bench, actor: Actor, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Feed, and run all of it to its commit without anything of the event loop; what was entered for every other
    record at least, and is no business of a synchronous stage's."""
    turn(bench, actor)  # has its partitions
    bench.feed(*({"n": n} for n in range(RECORDS)), keys=[b"k%d" % (n % 7) for n in range(RECORDS)])

    def forbidden(*_: Any, **__: Any) -> Any:
        pytest.fail("a synchronous stage asked the event loop for something")

    with monkeypatch.context() as patch, called_by_the_runtime() as entered:
        for name in ("create_task", "call_soon", "call_soon_threadsafe", "run_in_executor"):
            patch.setattr(bench.loop, name, forbidden)
        for _ in range(200):
            actor.step(0)
            if committed(bench).get(at()) == RECORDS:
                break
            bench.clock.advance_to(bench.clock.monotonic() + 0.1)
    assert committed(bench) == {at(): RECORDS}
    assert any(times >= RECORDS for times in entered.values()), "it saw what is called for each"
    return Counter(
        {
            name: times
            for name, times in entered.items()
            if times >= RECORDS / 2 and name.partition(".")[0] in NEVER_PER_RECORD
        }
    )


def test_a_chain_decodes_and_encodes_a_record_once_and_makes_no_task_copy_or_hop_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(stream: Any) -> None:
        first = stream.map(lambda v: {**v, "a": 1}, name="work")
        first.map(lambda v: {**v, "b": 2}, name="second").map(lambda v: v, name="third").to("out")

    bench = Bench(build)
    assert len(bench.setting.steps) == 3, "three steps in one stage"
    counts = Counts(monkeypatch)
    actor = bench.actor()
    assert go(bench, actor, monkeypatch) == {}
    assert counts.calls == {"loads": RECORDS, "dumps": 2 * RECORDS}, "each was written once by the test, and once here"
    assert bench.out() == [{"n": n, "a": 1, "b": 2} for n in range(RECORDS)]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_keyed_step_decodes_a_record_once_and_makes_no_task_copy_or_hop_for_it(
    monkeypatch: pytest.MonkeyPatch, guarantee: Any
) -> None:
    counts = Counts(monkeypatch)  # before the stage is made, which keeps some of them at hand
    bench = keyed_bench(counting, guarantee=guarantee)
    actor = bench.actor()
    assert go(bench, actor, monkeypatch) == {}
    assert counts.calls["copy"] == counts.calls["deepcopy"] == 0
    assert RECORDS <= counts.calls["loads"] <= 2 * RECORDS + 20, "the record, and its key's state"
    assert 2 * RECORDS <= counts.calls["dumps"] <= 3 * RECORDS + 20, "the test's, the output, and its key's state"
