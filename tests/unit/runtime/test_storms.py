"""Whatever workers and brokers go through: nothing lost, nothing doubled where that is promised, keys in order."""

from __future__ import annotations

from typing import Any

import pytest

from sage.spec.options import Guarantee, Ordering
from tests.unit.runtime.storm import KINDS, POISON, SYNCHRONOUS, Storm

SEEDS = range(40)

GROUP_EVENTS = ["join", "leave", "kill", "lose", "freeze", "wake", "wake"]
TRANSACTION_EVENTS = ["fail_transaction", "fail_commit", "stall"]
REFUSALS = ["refuse", "refuse_for_its_size"]
"""In three of four storms: the others hold besides that nothing else is dead or out of order."""


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_storm_loses_nothing_doubles_nothing_and_keeps_the_order_of_keys(kind: str, guarantee: Guarantee) -> None:
    for seed in SEEDS:
        orderings: list[Ordering] = ["key", "key", "partition", "none"]
        refusals = REFUSALS if seed % 16 < 12 else []
        storm = Storm(seed, kind, guarantee, orderings[seed % 4], [*GROUP_EVENTS, *TRANSACTION_EVENTS, *refusals])
        try:
            for _ in range(storm.chance.randint(3, 30)):
                storm.blow()
            storm.end()
            check(storm)
        except BaseException as error:
            error.add_note(f"Storm({seed}, {kind!r}, {guarantee!r}, {storm.ordering!r})")
            raise
        finally:
            storm.close()


def check(storm: Storm) -> None:
    """What must hold when a storm is over."""
    exact = storm.guarantee == "exactly_once"
    dead = storm.dead()
    poison = {value for value, _ in storm.fed if value % POISON == 5}
    refused = "refuse" in storm.events
    assert poison <= set(dead)
    if not refused:
        assert set(dead) == poison
    for key, outputs in storm.outputs().items():
        values = [output[0] if isinstance(output, list) else output for output in outputs]
        check_key(storm, [value for value, of in storm.fed if of == key and value not in dead], values, refused)
        # An asynchronous step's record may have been built upon before its output was refused for its size.
        counts = storm.kind.startswith(("keyed", "timers"))
        if exact and counts and (storm.kind in SYNCHRONOUS or set(dead) == poison):
            assert [count for _, count in outputs] == list(range(1, len(outputs) + 1))
    given = {value for outputs in storm.outputs().values() for value in map(_value, outputs)}
    assert {value for value, _ in storm.fed} <= given | set(dead)
    if exact:
        assert len(dead) == len(set(dead))
        assert not given & set(dead)


def check_key(storm: Storm, wanted: list[int], values: list[int], refused: bool) -> None:
    """One key's outputs: all that are wanted, in order, and once where that is promised."""
    first = list(dict.fromkeys(value for value in values if value >= 0))
    assert set(wanted) <= set(first)
    if storm.kind == "flat":
        assert {-value - 1 for value in wanted} <= set(values)
    if storm.guarantee == "exactly_once":
        assert len(values) == len(set(values))
    if storm.ordering == "key" and "timers" not in storm.kind and (storm.guarantee == "exactly_once" or not refused):
        assert first == sorted(first)


def _value(output: Any) -> Any:
    return output[0] if isinstance(output, list) else output
