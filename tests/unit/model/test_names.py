"""Names of topologies and steps, and the topics made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import InvalidTopology
from sage.model import names
from sage.model.names import check_name, folded

LEGAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=30).filter(
    lambda name: name not in names.RESERVED
)


@given(LEGAL)
def test_a_legal_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "A", "a b", "ä", "a/b", "a\n"])
def test_other_characters_are_refused(name: str) -> None:
    with pytest.raises(InvalidTopology, match="only a-z, 0-9, _ and - are allowed"):
        check_name(name)


@given(st.text(max_size=20))
def test_the_name_that_a_refusal_proposes_is_legal(name: str) -> None:
    try:
        check_name(name)
    except InvalidTopology as error:
        if "try " in error.message:
            proposed = error.message.rpartition("try ")[2].strip("'")
            assert proposed in names.RESERVED or check_name(proposed) == proposed


@pytest.mark.parametrize("name", ["dlq", "offsets", "stream", "retry", "journal", "changelog"])
def test_words_of_sages_own_topics_are_reserved(name: str) -> None:
    with pytest.raises(InvalidTopology, match="reserved") as caught:
        check_name(name, where="rag.yaml:3")
    assert str(caught.value).startswith("rag.yaml:3: ")


def test_names_that_kafka_takes_for_one_fold_to_one() -> None:
    assert folded("a.b_c") == folded("a.b.c") == folded("a_b.c")
    assert folded("a.b") != folded("a.c")


def test_topics_and_groups_hang_on_the_step() -> None:
    assert names.edge_topic("qa", "retrieve") == names.group_id("qa", "retrieve") == "qa.retrieve"
    assert names.edge_topic("qa", "split", "long") == "qa.split-long"
    assert names.dead_letter_topic("qa") == "qa.dlq"
    assert names.offsets_topic("qa") == "qa.offsets"
