"""Conversations without passages."""

from __future__ import annotations

import pytest

from sage.operators import ChatPromptor
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
