"""How much a synchronous stage puts into one transaction."""

from __future__ import annotations

from typing import Any

import pytest

from sage.runtime.batches import outbox
from tests.unit.runtime.acting import committed, counting, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at


@pytest.mark.parametrize("kind", ["fast", "careful", "keyed"])
def test_a_transaction_is_closed_when_it_is_full_and_what_is_left_over_comes_next(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TRANSACTION_BYTES", 10_000)
    options: Any = {"guarantee": "exactly_once"}
    if kind == "keyed":
        bench = keyed_bench(counting, **options)
    else:
        bench = Bench(
            lambda s: s.filter(bool, name="work") if kind == "careful" else s.map(str, name="work"), **options
        )
    actor = bench.actor()
    turn(bench, actor, seconds=0.2, times=2)
    transactions = actor._transactions
    assert transactions is not None
    commit, sizes = transactions.commit, list[int]()

    def seen(*arguments: Any) -> None:
        sizes.append(transactions.open_bytes)
        commit(*arguments)

    monkeypatch.setattr(transactions, "commit", seen)
    bench.feed(*["x" * 500] * 300, keys=[b"k"] * 300)
    turn(bench, actor, seconds=0.2, times=40)
    assert len(bench.out()) == 300
    assert committed(bench) == {at(): 300}
    one_look = 33 * 600  # the fast ways look every 16 or 32 records
    assert max(sizes) < 10_000 + one_look
    assert sum(sizes) >= 300 * 502
