"""Answers that are sentences of the passages."""

from __future__ import annotations

import pytest

from sage.operators import ExtractiveReader
from tests.support.step_contexts import context

DOCUMENTS = [
    {"id": "a", "text": "Trains are used for short journeys. Hotels may cost 140 euros.", "score": 0.9, "metadata": {}},
    {"id": "b", "text": "食堂在三号楼一层。食堂经理是周敏。", "score": 0.5, "metadata": {}},
]


def test_says_that_it_is_extractive_and_where_the_words_stand() -> None:
    result = ExtractiveReader().process({"query": "How much may hotels cost?", "documents": DOCUMENTS}, context())
    assert result["answer"] == "Hotels may cost 140 euros."
    assert result["model"] == "extractive"
    assert result["citations"] == [{"document_id": "a", "quote": "Hotels may cost 140 euros."}]
    assert result["documents"] == DOCUMENTS


def test_reads_chinese() -> None:
    assert (
        ExtractiveReader().process({"query": "食堂经理是谁？", "documents": DOCUMENTS}, context())["answer"]
        == "食堂经理是周敏。"
    )


def test_several_sentences_come_in_the_order_of_the_text() -> None:
    operator = ExtractiveReader(ExtractiveReader.Config(sentences=2))
    result = operator.process({"query": "hotels cost, trains?", "documents": DOCUMENTS[:1]}, context())
    assert result["answer"] == "Trains are used for short journeys. Hotels may cost 140 euros."


def test_without_passages_there_is_no_answer() -> None:
    result = ExtractiveReader().process({"query": "Why?", "documents": []}, context())
    assert (result["answer"], result["citations"]) == ("", [])


def test_a_record_without_documents_dies_by_name() -> None:
    with pytest.raises(KeyError, match="documents"):
        ExtractiveReader().process("Why?", context())
