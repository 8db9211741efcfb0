"""Which letters a filter means."""

from __future__ import annotations

import pytest

from sage.errors import UnknownName
from sage.operations.dead_letters import Letter
from sage.operations.letter_filter import LetterFilter

LETTER = Letter(
    id="0:1", step="generate", error="TransientFailure", message="the model did not answer", source="qa.prompt-0@4",
    attempts=5, timestamp=None, record={"key": "user-7", "value": {}, "headers": []}, trace="", stage="generate",
)  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "holds"),
    [
        ([], True),
        (["step=generate"], True),
        (["step=gen"], False),
        (["step=gen*"], True),
        (["error=*Failure", "key=user-?"], True),
        (["error=*Failure", "key=user-8"], False),
        (["source=qa.prompt-0@*"], True),
        (["stage=generate"], True),
        (["message=*not answer"], True),
        (["Did Not"], True),
        (["keyerror"], False),
        (["a == b"], False),
    ],
)
def test_all_conditions_must_hold(texts: list[str], holds: bool) -> None:
    assert LetterFilter.parse(texts).matches(LETTER) is holds


def test_a_record_without_a_key_matches_no_key() -> None:
    letter = Letter("0:1", "s", "E", "", "", 1, None, {"key": None, "value": None, "headers": []}, "")
    assert not LetterFilter.parse(["key=?*"]).matches(letter)


def test_an_unknown_field_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UnknownName, match="no field 'stpe'; there are step, stage, error, message, source, key"):
        LetterFilter.parse(["stpe=generate"])
