"""Record ids: the same after every replay, different for every record."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage.model.identity import MAX_LENGTH, extended, joined, source_root, topic_root
from sage.model.json import Json

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=12)
POSITIONS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_a_foreign_record_is_named_by_its_first_place() -> None:
    assert topic_root("8f3a", 2, 17) == "8f3a:2:17"


@given(NAMES, NAMES, NAMES, POSITIONS)
def test_a_sources_record_has_the_same_id_after_a_replay_and_another_in_a_fresh_epoch(
    epoch: str, source: str, task: str, position: Json
) -> None:
    once = source_root(epoch, source, task, position)
    assert source_root(epoch, source, task, position) == once
    assert source_root(f"{epoch}x", source, task, position) != once


def test_positions_are_compared_by_value_not_by_the_order_of_their_fields() -> None:
    assert source_root("e", "s", "0", {"a": 1, "b": 2}) == source_root("e", "s", "0", {"b": 2, "a": 1})


def test_tasks_and_positions_do_not_run_into_each_other() -> None:
    positions: list[Json] = [None, 0, 1, "1", [1]]
    ids = {source_root("e", "s", task, position) for task in ("a", "b") for position in positions}
    assert len(ids) == 10


@given(st.lists(st.tuples(NAMES, st.integers(0, 10_000)), max_size=60))
def test_an_id_never_grows_without_bound_and_stays_stable(way: list[tuple[str, int]]) -> None:
    def walk() -> str:
        record_id = topic_root("topic", 0, 1)
        for step, index in way:
            record_id = extended(record_id, step, index)
            assert len(record_id) <= MAX_LENGTH
        return record_id

    assert walk() == walk()


@given(NAMES, st.integers(0, 500), st.integers(0, 500), st.integers(0, 30))
def test_outputs_of_one_record_have_different_ids(step: str, one: int, other: int, depth: int) -> None:
    record_id = "root"
    for _ in range(depth):
        record_id = extended(record_id, "a-long-name-of-a-step", 3)
    assert (extended(record_id, step, one) == extended(record_id, step, other)) == (one == other)


def test_a_join_depends_on_both_sides_and_on_which_is_left() -> None:
    assert joined("a", "b") == joined("a", "b")
    assert len({joined("a", "b"), joined("b", "a"), joined("ab", ""), joined("a", "c")}) == 4
