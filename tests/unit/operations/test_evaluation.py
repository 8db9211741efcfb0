"""Data sets, measures, goals, and what became worse: without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import DecodeFailure, InvalidTopology, NotFound, SageError, UnknownName
from sage.graph.builder import StreamBuilder
from sage.llm.text import scores
from sage.operations.evaluation import saved
from sage.operations.evaluation.comparing import compare
from sage.operations.evaluation.dataset import Dataset, read_dataset
from sage.operations.evaluation.goals import parse_goals, refuse_unknown, shortfalls
from sage.operations.evaluation.scoring import METRICS, Evaluation, Scorer, results_of
from sage.operators import QAPromptor


def dataset_of(tmp_path: Path, *records: Any) -> Dataset:
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_dataset(path)


def evaluation_of(dataset: Dataset, outputs: dict[int, list[Any]], deaths: dict[int, str] | None = None) -> Evaluation:
    results = results_of(dataset, Scorer("qa"), outputs, deaths or {})
    return Evaluation("qa", 0, dataset.path, dataset.digest, 1.0, results)


QUESTIONS = [{"query": f"q{number}", "expected": "twenty days"} for number in range(1, 5)]


# --------------------------------------------------------------------------------------------- data sets


def test_a_dataset_takes_one_text_or_several_under_either_name(tmp_path: Path) -> None:
    found = dataset_of(
        tmp_path,
        {"query": "a", "expected": "1"},
        {"query": "b", "references": ["2", "two"], "id": 7, "page": "x"},
    )
    assert [(one.line, one.query, one.expected, one.id) for one in found.examples] == [
        (1, "a", ("1",), "a"),
        (2, "b", ("2", "two"), "7"),
    ]
    assert found.examples[1].record["page"] == "x"


def test_blank_lines_and_a_byte_order_mark_are_no_questions_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"query": "a\xe2\x80\xa8b", "expected": "1"}\r\n\n')
    (only,) = read_dataset(path).examples
    assert (only.line, only.query) == (2, "a\u2028b")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "not JSON"),
        ("[1]", "found a list; write an object"),
        ('{"expected": "1"}', "query must be a text; the object has expected"),
        ('{"query": " ", "expected": "1"}', "query must be a text"),
        ('{"query": "a"}', "expected must be a text or a list of texts (references is read too); the object has query"),
        ('{"query": "a", "expected": []}', "found an empty list"),
        ('{"query": "a", "references": [1]}', "references must be"),
        ('{"query": "a", "expected": null}', "found null"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"query": "a", "expected": "1"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DecodeFailure) as raised:
        read_dataset(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert says in str(raised.value)
    assert raised.value.exit_code == 2


def test_no_file_no_text_and_no_questions_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_dataset(tmp_path / "none.jsonl")
    with pytest.raises(SageError, match="can't be read"):
        read_dataset(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DecodeFailure, match="has no questions"):
        read_dataset(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DecodeFailure, match="not UTF-8"):
        read_dataset(tmp_path / "binary.jsonl")


# ---------------------------------------------------------------------------------------------- measures


def test_a_question_without_an_answer_counts_as_nothing_and_is_never_left_out(tmp_path: Path) -> None:
    right = {"answer": "twenty days"}
    found = evaluation_of(dataset_of(tmp_path, *QUESTIONS), {1: [right], 2: [{"query": "q2"}]}, {3: "step generate: x"})
    assert [result.status for result in found.results] == ["answered", "missing", "dead", "missing"]
    assert found.mean("f1") == 0.25
    assert (found.measured("f1"), found.count("missing"), found.count("dead")) == (1, 2, 1)
    assert [result.reason for result in found.results] == [
        "", "the output has no answer: it has query", "step generate: x", "nothing came out for it",
    ]  # fmt: skip


def test_an_answer_beside_a_dead_letter_of_another_branch_counts(tmp_path: Path) -> None:
    found = evaluation_of(dataset_of(tmp_path, QUESTIONS[0]), {1: [None, {"answer": "twenty days"}]}, {1: "audit"})
    assert (found.results[0].status, found.mean("exact_match")) == ("answered", 1.0)


def test_the_expected_answers_are_the_data_sets_whatever_the_topology_made_of_them(tmp_path: Path) -> None:
    forged = {"answer": "none", "expected": ["none"]}
    assert evaluation_of(dataset_of(tmp_path, QUESTIONS[0]), {1: [forged]}).mean("f1") == 0.0


def test_measures_of_the_topology_stay_and_count_over_all_questions(tmp_path: Path) -> None:
    outputs: dict[int, list[Any]] = {
        1: [{"answer": "x", "metrics": {"faithful": 1, "f1": 9, "note": "text", "flag": True, "odd": float("nan")}}],
        2: [{"answer": "x", "metrics": "none"}],
    }
    found = evaluation_of(dataset_of(tmp_path, *QUESTIONS), outputs)
    assert found.metrics == [*METRICS, "faithful"]
    assert (found.mean("faithful"), found.measured("faithful"), found.mean("f1")) == (0.25, 1, 0.0)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.text(max_size=20))
def test_means_are_those_of_the_one_implementation(answers: list[str], expected: str) -> None:
    from sage.operations.evaluation.dataset import Example

    examples = tuple(Example(n, f"q{n}", (expected,), {}) for n in range(1, len(answers) + 1))
    found = evaluation_of(Dataset("d", "", examples), {n: [{"answer": answer}] for n, answer in enumerate(answers, 1)})
    wanted = sum(round(scores.f1(answer, [expected]), 4) for answer in answers) / len(answers)
    assert found.mean("f1") == pytest.approx(wanted)
    assert all(0 <= found.mean(name) <= 1 for name in METRICS)
    worst = found.worst("f1", len(answers))
    assert [one.score("f1") for one in worst] == sorted(one.score("f1") for one in found.results)


# ------------------------------------------------------------------------------------------------- goals


def test_goals_are_numbers_by_measure() -> None:
    assert parse_goals(["f1=0.6", " bleu = 1e-1 "]) == {"f1": 0.6, "bleu": 0.1}
    for wrong in (["f1"], ["=1"], ["f1=high"], ["f1=nan"], ["f1=1", "f1=2"]):
        with pytest.raises(ValueError, match=r"METRIC=NUMBER|named twice"):
            parse_goals(wrong)


def test_what_is_not_reached_is_told_with_what_is_missing(tmp_path: Path) -> None:
    found = evaluation_of(dataset_of(tmp_path, *QUESTIONS), {1: [{"answer": "twenty days"}]})
    assert shortfalls(found, {"f1": 0.25}) == []
    assert shortfalls(found, {"f1": 0.6, "bleu": 0.2}) == ["f1 is 0.2500, 0.3500 short of 0.6"]
    with pytest.raises(UnknownName, match="did you mean f1"):
        shortfalls(found, {"f11": 0.1})


def test_a_measure_that_nobody_writes_is_refused_before_the_run() -> None:
    builder = StreamBuilder("qa")
    builder.from_topic("questions").map(QAPromptor, name="prompt").to("answers")
    with pytest.raises(UnknownName, match=r"'rogue_l'.*did you mean rouge_l") as raised:
        refuse_unknown(builder.build(), ["f1", "rogue_l"])
    assert raised.value.exit_code == 2
    builder.from_topic("others").map(lambda value: value, name="judge").to("judged")
    refuse_unknown(builder.build(), ["faithful"])


# ------------------------------------------------------------------------------------- saved and compared


def test_a_saved_evaluation_comes_back_the_same(tmp_path: Path) -> None:
    found = evaluation_of(dataset_of(tmp_path, *QUESTIONS), {1: [{"answer": "二十天"}]}, {2: "step x: y"})
    saved.save(tmp_path / "a.json", found)
    again = saved.load(tmp_path / "a.json")
    assert again.as_dict() == found.as_dict()
    assert [(one.status, one.answer, one.expected, one.reason) for one in again.results] == [
        (one.status, one.answer, one.expected, one.reason) for one in found.results
    ]


def test_what_is_no_saved_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        saved.load(tmp_path / "none.json")
    for text in ("{", "[]", '{"kind": "evaluation", "format": 99}', '{"kind": "evaluation", "format": 1}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InvalidTopology, match="is not what `sage topology eval --save FILE`") as raised:
            saved.load(tmp_path / "a.json")
        assert raised.value.exit_code == 2
    with pytest.raises(SageError, match="cannot be written"):
        saved.save(tmp_path / "no" / "a.json", evaluation_of(dataset_of(tmp_path, QUESTIONS[0]), {}))


def test_what_became_worse_comes_first_and_the_greatest_loss_before_all(tmp_path: Path) -> None:
    right, half, wrong = {"answer": "twenty days"}, {"answer": "twenty"}, {"answer": "none"}
    dataset = dataset_of(tmp_path, *QUESTIONS)
    before = evaluation_of(dataset, {1: [right], 2: [right], 3: [wrong], 4: [right]})
    now = evaluation_of(dataset, {1: [half], 2: [wrong], 3: [right], 4: [right]})
    change = compare(before, now, "f1")
    assert [one.now.query for one in change.regressions] == ["q2", "q1"]
    assert [one.change for one in change.metrics] == sorted(one.change for one in change.metrics)
    assert (change.improved, change.only_before, change.only_now) == (1, 0, 0)


def test_questions_are_compared_by_what_they_are_known_by(tmp_path: Path) -> None:
    right = {"answer": "1"}
    before = evaluation_of(
        dataset_of(tmp_path, {"id": "a", "query": "x", "expected": "1"}, {"query": "y", "expected": "1"}),
        {1: [right], 2: [right]},
    )
    now = evaluation_of(
        dataset_of(
            tmp_path,
            {"query": "new", "expected": "1"},
            {"id": "a", "query": "put otherwise", "expected": "1"},
            {"id": "a", "query": "the same id again", "expected": "1"},
        ),
        {1: [right]},
    )
    change = compare(before, now, "exact_match")
    assert [(one.now.line, one.change) for one in change.regressions] == [(2, -1.0)]
    assert (change.only_before, change.only_now) == (1, 2)
    assert {(one.before, one.now) for one in change.metrics} == {(1.0, 0.0)}  # of the one that both have
    others = evaluation_of(dataset_of(tmp_path, {"query": "another", "expected": "1"}), {})
    assert compare(before, others, "f1").metrics == ()
