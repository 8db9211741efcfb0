"""The pipeline without broker, memory server or model: ``pytest`` runs it in memory in a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.testing import ScriptedChatModel, TopologyDriver

PROJECT = Path(__file__).parent.parent
QUESTION = "How many days of leave do new staff get?"
LEAVE: dict[str, Any] = {
    "id": "leave.md#0",
    "text": "New staff get 20 days of paid leave a year. After five years of service it becomes 25 days.",
    "score": 0.9,
    "metadata": {},
}

Ask = Callable[[str], tuple[dict[str, Any], str]]


def retrieve(question: str) -> dict[str, Any]:
    """Stands for the search in the handbook."""
    return {"query": question, "documents": [LEAVE]}


@pytest.fixture
def ask(sage_driver: Callable[..., TopologyDriver]) -> Ask:
    """Asks a model that says ``reply``; gives the record that is printed, and what the model was asked."""

    def run(reply: str) -> tuple[dict[str, Any], str]:
        model = ScriptedChatModel([reply])
        printed: list[dict[str, Any]] = []
        overrides = {"retrieve": retrieve, "generate": model, "answers": printed.append}
        driver = sage_driver(PROJECT / "rag-qa.yaml", overrides=overrides)
        driver.send(QUESTION)
        assert driver.dead_letters() == []
        return printed[0], model.prompts[0]

    return run


def test_the_model_sees_the_best_sentence_and_the_question(ask: Ask) -> None:
    """Nothing else of the passages: a small model would lose the thread."""
    _, prompt = ask("20 days")
    assert prompt == f"New staff get 20 days of paid leave a year.\n\nQuestion: {QUESTION}"


def test_an_answer_from_the_passage_is_given_with_its_place(ask: Ask) -> None:
    """The sentence that the answer stands on is cited."""
    record, _ = ask("20 days")
    assert record["answer"] == "20 days"
    assert record["citations"][0]["quote"] == "New staff get 20 days of paid leave a year."


def test_an_answer_that_the_passage_does_not_bear_out_is_replaced_and_says_so(ask: Ask) -> None:
    """What is extractive says so."""
    record, _ = ask("Around 300 days, I believe.")
    assert record["answer"] == "New staff get 20 days of paid leave a year."
    assert record["model"] == "extractive"
