"""The text beside a committed offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.runtime.actors.commit_text import CommitText, JournalMark


@given(st.text(max_size=80), st.none() | st.builds(JournalMark, st.integers(0, 2**62), st.booleans()))
def test_it_comes_back_and_stays_far_below_the_brokers_limit(name: str, journal: JournalMark | None) -> None:
    text = CommitText(name, journal).encode()
    assert CommitText.decode(text) == CommitText(name, journal)
    assert len(text.encode()) < 1_000


@pytest.mark.parametrize("text", ["", "{", "[]", "reset by hand", '{"t": 3, "j": "x"}'])
def test_what_another_program_wrote_says_nothing(text: str) -> None:
    assert CommitText.decode(text) == CommitText()
