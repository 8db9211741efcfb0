"""The account of which letters were replayed, kept in a commit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import SageError
from sage.operations.replay_progress import MAX_TEXT, Progress
from sage.ports import Commit


@given(st.integers(0, 10**12), st.sets(st.integers(0, 3_000)))
def test_an_account_is_the_same_after_a_commit(first: int, places: set[int]) -> None:
    progress = Progress(first)
    progress.add(*(first + place for place in places))
    again = Progress.of(Commit(progress.first, progress.text()), 0)
    assert (again.first, again.done) == (progress.first, progress.done)
    for place in range(max(places, default=0) + 2):
        assert again.has(first + place) is (place in places)


@given(st.sets(st.integers(0, 200)), st.integers(0, 250))
def test_what_retention_or_a_purge_took_is_done(places: set[int], start: int) -> None:
    progress = Progress()
    progress.add(*places)
    after = Progress.of(Commit(progress.first, progress.text()), start)
    assert all(after.has(offset) is (offset < start or offset in places) for offset in range(260))


def test_a_hundred_thousand_letters_after_one_that_stays_fit() -> None:
    progress = Progress(0)
    progress.add(*range(1, 100_000))
    assert len(progress.text()) <= MAX_TEXT


def test_at_worst_twenty_four_thousand_letters_fit() -> None:
    chance, progress = random.Random(7), Progress(0)
    progress.add(*(offset for offset in range(1, 24_000) if chance.random() < 0.5))
    assert len(progress.text()) <= MAX_TEXT


def test_more_is_refused_with_what_to_do() -> None:
    chance, progress = random.Random(7), Progress(0)
    progress.add(*(offset for offset in range(1, 60_000) if chance.random() < 0.5))
    with pytest.raises(SageError, match="replay without --filter, or purge"):
        progress.text()


@pytest.mark.parametrize("text", ["hello", "1:&&&~~~'", "1:abc"])
def test_another_programs_text_is_refused(text: str) -> None:
    with pytest.raises(SageError, match="a text of another program"):
        Progress.of(Commit(3, text), 0)


def test_a_copy_is_apart() -> None:
    progress = Progress(0)
    copy = progress.copy()
    copy.add(0, 5)
    assert (progress.first, progress.done, copy.first, copy.done) == (0, set(), 1, {5})
