"""Dead letters as people read them, and the sentence about a run in which records died."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sage.errors import NotFound
from sage.graph.topology import Input, Step, Topology
from sage.operations import dead_letters
from sage.operations.runs import explain_deaths, nothing_new
from sage.runtime.retries.dead_letters import dead_letter
from sage.testing.broker import InMemoryClients
from sage.testing.in_memory_log import InMemoryMessage
from tests.unit.operations.conftest import Write


def kill(clients: InMemoryClients, write: Write, value: bytes, error: BaseException, *, step: str = "prompt") -> None:
    """Write the dead letter that the runtime would write for ``value``."""
    write("qa.input", [value], key=b"k", headers=[("traceparent", b"00-1-2-01")])
    consumer = clients.consumer(None)
    from sage.model.partition import TopicPartition

    consumer.assign({TopicPartition("qa.input", 0): -2})
    found: list[InMemoryMessage] = []
    while not found or found[-1].value() != value:
        found += consumer.poll(100, 0.1)  # type: ignore[arg-type]
    letter = dead_letter(
        found[-1], error, topology="qa", stage=step, step=step, code="tests.prompt", worker="w1", attempts=3,
        topic="qa.dlq",
    )  # fmt: skip
    write("qa.dlq", [letter.value], key=letter.key, headers=letter.headers)


def test_a_letter_shows_the_record_as_it_was_and_why_it_died(clients: InMemoryClients, write: Write) -> None:
    kill(clients, write, b'{"query": "why?"}', KeyError("documents"))
    (letter,) = dead_letters.list_letters(clients, "qa")
    assert (letter.step, letter.error, letter.message) == ("prompt", "KeyError", "'documents'")
    assert letter.source == "qa.input-0@0"
    assert letter.attempts == 3
    assert letter.record == {"key": "k", "value": {"query": "why?"}, "headers": [["traceparent", "00-1-2-01"]]}
    assert "KeyError" in letter.trace
    assert letter.reason == "KeyError: 'documents'"


def test_the_summary_counts_by_step_and_error(clients: InMemoryClients, write: Write) -> None:
    kill(clients, write, b"{}", KeyError("documents"))
    kill(clients, write, b"{1", KeyError("documents"))
    kill(clients, write, b"{2", ValueError("no JSON"), step="retrieve")
    letters = dead_letters.list_letters(clients, "qa")
    assert dead_letters.summary(letters) == "3 dead: 2 KeyError at step prompt, 1 ValueError at step retrieve"
    assert dead_letters.summary([]) == "no dead letters"


def test_one_letter_is_found_by_its_id_else_the_newest(clients: InMemoryClients, write: Write) -> None:
    kill(clients, write, b"{1", ValueError("first"))
    kill(clients, write, b"{2", ValueError("second"))
    assert dead_letters.show(clients, "qa", "0:0").message == "first"
    assert dead_letters.show(clients, "qa", "0").message == "first"
    assert dead_letters.show(clients, "qa", None).message == "second"
    with pytest.raises(NotFound, match="no dead letter 0:9; see `sage dlq list qa`"):
        dead_letters.show(clients, "qa", "0:9")


def test_only_the_last_ones_are_listed(clients: InMemoryClients, write: Write) -> None:
    for number in range(5):
        kill(clients, write, b"{%d" % number, ValueError(str(number)))
    assert [one.message for one in dead_letters.list_letters(clients, "qa", limit=2)] == ["3", "4"]


def test_a_topology_that_never_ran_is_not_one_without_dead_letters(clients: InMemoryClients, write: Write) -> None:
    with pytest.raises(NotFound, match=r"topic other\.dlq: does not exist; no topology named other has run"):
        dead_letters.list_letters(clients, "other")
    write("qa.dlq", [])
    assert dead_letters.list_letters(clients, "qa") == []
    with pytest.raises(NotFound, match="qa has no dead letters"):
        dead_letters.show(clients, "qa", None)


def test_a_letter_of_another_program_is_shown_too(clients: InMemoryClients, write: Write) -> None:
    write("qa.dlq", [b"text"], headers=[("reason", b"by hand")])
    (letter,) = dead_letters.list_letters(clients, "qa")
    assert (letter.step, letter.error, letter.source, letter.attempts) == ("?", "?", "?-?@?", 1)
    assert letter.record["headers"] == [["reason", "by hand"]]


@dataclass(frozen=True)
class StepNumbers:
    read: int


@dataclass(frozen=True)
class Numbers:
    """A run's report in the shape that the sentences need."""

    topology: str = "qa"
    steps: dict[str, StepNumbers] = field(default_factory=lambda: {"prompt": StepNumbers(100)})
    dead_letters: int = 3


def test_sage501_names_step_count_reason_and_remedy(clients: InMemoryClients, write: Write) -> None:
    for number in range(3):
        kill(clients, write, b'{"query": "?", "id": "%d"}' % number, KeyError("documents"))
    error = explain_deaths(Numbers(), dead_letters.list_letters(clients, "qa"))
    assert str(error) == (
        "step \"prompt\": 3 of 100 records dead: KeyError 'documents' (the record has: id, query). "
        "Is a retriever upstream? `sage dlq show qa`. [SAGE501]"
    )
    assert error.exit_code == 1


def test_another_reason_is_given_as_it_is_with_one_code_at_the_end(clients: InMemoryClients, write: Write) -> None:
    from sage.errors import TransientFailure

    kill(clients, write, b"{}", TransientFailure("the model did not answer within 60 s"), step="generate")
    error = explain_deaths(Numbers(dead_letters=1), dead_letters.list_letters(clients, "qa"))
    assert str(error) == (
        'step "generate": 1 record dead: TransientFailure: the model did not answer within 60 s. '
        "`sage dlq show qa`. [SAGE501]"
    )


def test_without_letters_the_count_still_stands() -> None:
    assert str(explain_deaths(Numbers(), [])) == "qa: 3 records dead. `sage dlq show qa`. [SAGE501]"


def test_a_plain_text_is_not_said_to_have_fields(clients: InMemoryClients, write: Write) -> None:
    kill(clients, write, b'"why?"', KeyError("documents"))
    error = explain_deaths(Numbers(dead_letters=1, steps={}), dead_letters.list_letters(clients, "qa"))
    assert str(error) == (
        "step \"prompt\": 1 record dead: KeyError 'documents'. Is a retriever upstream? `sage dlq show qa`. [SAGE501]"
    )


def test_a_run_whose_sources_gave_nothing_says_how_to_read_all_again() -> None:
    topology = Topology(
        "qa", (Step("one", "source"), Step("two", "source"), Step("out", "sink", inputs=(Input("one"),)))
    )
    idle = Numbers(steps={"one": StepNumbers(0), "two": StepNumbers(0), "out": StepNumbers(0)})
    assert nothing_new(topology, idle) == "nothing new to read; --from-beginning reads all again"
    busy = Numbers(steps={"one": StepNumbers(0), "two": StepNumbers(3), "out": StepNumbers(3)})
    assert nothing_new(topology, busy) is None


def test_a_topology_without_a_source_of_its_own_is_not_told_to_start_afresh() -> None:
    topology = Topology("qa", (Step("questions", "source", target="topic"), Step("out", "sink")))
    idle = Numbers(steps={"questions": StepNumbers(0), "out": StepNumbers(0)})
    assert nothing_new(topology, idle) is None
