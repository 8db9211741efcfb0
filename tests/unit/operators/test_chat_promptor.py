"""Conversations without passages."""

from __future__ import annotations

from typing import Any

import pytest

from sage.operators import ChatPromptor, QAPromptor
from tests.support.step_contexts import context

HISTORY = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, ["one", "two", "three"]), (2, ["two", "three"]), (0, []), (9, ["one", "two", "three"])]
)
def test_tells_the_last_turns_and_then_the_question(limit: int | None, kept: list[str]) -> None:
    operator = ChatPromptor(ChatPromptor.Config(system="Be kind.", max_history=limit))
    result = operator.process({"query": "four", "history": HISTORY}, context())
    assert [message["content"] for message in result["messages"]] == ["Be kind.", *kept, "four"]
    assert result["history"] == HISTORY


def test_a_text_is_a_question_and_no_system_message_is_made_up() -> None:
    assert ChatPromptor().process("Hi", context())["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_record_without_a_question_dies() -> None:
    with pytest.raises(KeyError, match="query"):
        ChatPromptor().process({"text": "Hi"}, context())


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"query": None}, "query is a NoneType, not a text"),
        ({"query": 5}, "query is a int, not a text"),
        ({"query": "Hi", "history": "before"}, "history is a str, not a list of turns"),
        ({"query": "Hi", "history": [{"role": "user"}]}, "turn 1 of history must be an object with role and content"),
        ({"query": "Hi", "history": [HISTORY[0], "two"]}, "turn 2 of history must be an object with role and content"),
    ],
)
@pytest.mark.parametrize("operator", [ChatPromptor, QAPromptor])
def test_what_no_model_should_be_asked_is_refused_with_the_field(
    operator: type[Any], fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        operator().process({"documents": [], **fields}, context())


@pytest.mark.parametrize("operator", [ChatPromptor, QAPromptor])
def test_a_history_of_null_is_none(operator: type[Any]) -> None:
    messages = operator().process({"query": "Hi", "documents": [], "history": None}, context())["messages"]
    assert "Hi" in messages[-1]["content"]
