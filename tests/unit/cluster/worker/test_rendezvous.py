"""Who hosts what: agreed on without talking, and moved as little as can be."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sage.cluster.worker.rendezvous import ranked

NAMES = st.text(alphabet="abcdefghij0123456789-", min_size=1, max_size=8)
WORKERS = st.sets(NAMES, min_size=1, max_size=12)


@given(WORKERS, NAMES, NAMES, st.randoms())
def test_everybody_comes_to_the_same_order(workers: set[str], topology: str, unit: str, random: object) -> None:
    shuffled = list(workers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ranked(topology, unit, shuffled) == ranked(topology, unit, sorted(workers))


@given(WORKERS, NAMES, NAMES, st.integers(1, 5))
def test_who_goes_takes_only_its_own_units_along(workers: set[str], topology: str, unit: str, hosts: int) -> None:
    before = ranked(topology, unit, workers)[:hosts]
    for gone in workers:
        after = ranked(topology, unit, workers - {gone})[:hosts]
        if gone in before:
            assert set(before) - {gone} <= set(after)
        else:
            assert after == before


def test_units_spread_over_the_workers() -> None:
    workers = [f"w{number}" for number in range(5)]
    counted = Counter(ranked("qa", f"stage-{number}", workers)[0] for number in range(1_000))
    assert all(140 < counted[worker] < 260 for worker in workers), counted
