"""The prompt's template: what it sees, and how it fails."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sage.errors import RecordFailure
from sage.operators import QAPromptor
from tests.support.step_contexts import context

DOCUMENTS = [
    {"id": "leave.md#0", "text": "New staff get 20 days. Ask your lead.", "score": 0.9, "metadata": {}},
    {"id": "travel.md#0", "text": "Trains are used for short journeys.", "score": 0.5, "metadata": {}},
]
RECORD: dict[str, Any] = {"query": "How many days do new staff get?", "documents": DOCUMENTS, "id": "7"}


def messages(record: Any = None, **config: Any) -> list[dict[str, str]]:
    operator = QAPromptor(QAPromptor.Config(**config))
    written: list[dict[str, str]] = operator.process(RECORD if record is None else record, context())["messages"]
    return written


def test_default_prompt_has_the_question_and_words_of_the_best_passage() -> None:
    asked = messages()
    assert [message["role"] for message in asked] == ["system", "user"]
    assert RECORD["query"] in asked[-1]["content"]
    assert "20 days" in asked[-1]["content"]


def test_other_fields_stay_and_the_input_is_not_touched() -> None:
    record = dict(RECORD)
    result = QAPromptor().process(record, context())
    assert {**result, "messages": None} == {**RECORD, "messages": None}
    assert "messages" not in record


def test_only_the_best_documents_are_told() -> None:
    template = "{% for document in documents %}{{ document.id }} {% endfor %}"
    assert messages(template=template)[-1]["content"] == "leave.md#0 travel.md#0 "
    assert messages(template=template, max_documents=1)[-1]["content"] == "leave.md#0 "


def test_examples_and_history_come_between_system_and_question() -> None:
    record = {**RECORD, "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    asked = messages(record, system="Be brief.", template="{{ query }}", examples=[{"user": "u", "assistant": "a"}])
    assert [(m["role"], m["content"]) for m in asked] == [
        ("system", "Be brief."),
        ("user", "u"),
        ("assistant", "a"),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", RECORD["query"]),
    ]


@pytest.mark.parametrize(("query", "shown"), [("How many?", ["english"]), ("有几天年假？", ["chinese"])])
def test_an_example_is_shown_where_its_condition_holds(query: str, shown: list[str]) -> None:
    examples = [
        {"user": "english", "assistant": "a", "when": "query is not chinese"},
        {"user": "chinese", "assistant": "a", "when": "query is chinese"},
    ]
    asked = messages({"query": query}, system="", template="-", examples=examples)
    assert [message["content"] for message in asked[:-1]] == [*shown, "a"]


def test_a_broken_condition_is_refused() -> None:
    with pytest.raises(ValidationError, match="line 1"):
        QAPromptor.Config.model_validate({"examples": [{"user": "u", "assistant": "a", "when": "query is"}]})


def test_an_empty_system_message_is_left_out() -> None:
    assert [message["role"] for message in messages(system="")] == ["user"]


def test_a_text_is_a_question() -> None:
    assert messages("Why?", template="{{ query }}", system="")[-1]["content"] == "Why?"


def test_any_field_of_the_record_can_be_used() -> None:
    assert messages(template="{{ id }}: {{ query }}")[-1]["content"] == f"7: {RECORD['query']}"


def test_relevant_gives_the_nearest_sentences_only() -> None:
    asked = messages(template="{{ documents | relevant(query, 1) | join(' ') }}")
    assert asked[-1]["content"] == "New staff get 20 days."


@pytest.mark.parametrize("template", ["{{ documents[0].text }}", "{% for d in documents %}{{ d.text }}{% endfor %}"])
def test_without_a_retriever_the_record_dies_by_the_missing_fields_name(template: str) -> None:
    with pytest.raises(KeyError) as caught:
        messages({"query": "How?", "id": "1"}, template=template)
    assert caught.value.args == ("documents",)
    assert caught.value.__notes__ == ["the record has: id, query", "Is a retriever upstream?"]


def test_a_template_may_ask_whether_there_are_documents() -> None:
    template = "{% if documents is defined %}with{% else %}without{% endif %}"
    assert messages({"query": "How?"}, template=template)[-1]["content"] == "without"


def test_documents_that_are_no_list_are_refused_with_the_field() -> None:
    with pytest.raises(TypeError, match="documents is a NoneType, not a list of passages"):
        QAPromptor().process({"query": "Hi", "documents": None}, context())


def test_a_misspelt_field_of_a_document_names_the_line() -> None:
    with pytest.raises(RecordFailure, match=r"template line 2: .*'txt'"):
        messages(template="Passage:\n{{ documents[0].txt }}")


def test_a_broken_template_is_refused_before_any_record_with_its_line() -> None:
    with pytest.raises(ValidationError, match="line 3: "):
        QAPromptor.Config(template="one\ntwo\n{{ query")
    with pytest.raises(ValidationError, match=r"line 1: .*nosuchfilter"):
        QAPromptor.Config(system="{{ query | nosuchfilter }}")


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ documents.append(1) }}", "{{ query.__init__.__globals__ }}"],
)
def test_a_template_cannot_reach_out_of_its_sandbox(template: str) -> None:
    with pytest.raises(RecordFailure):
        messages(template=template)


def test_misspelt_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="templte"):
        QAPromptor.Config.model_validate({"templte": "x"})


def test_other_values_than_texts_and_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="not list"):
        messages([1, 2])
