"""CEL predicates, asked about one record."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sage.errors import InvalidTopology, RecordFailure
from sage.spec.cel import CelPredicate
from sage.spec.context import Context, StepScope
from sage.testing.services import ScriptedServices


class Message:
    """What a predicate sees of a message."""

    def key(self) -> bytes:
        return b"ann"

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [("tenant", b"a"), ("empty", None)]

    def timestamp(self) -> tuple[int, int]:
        return (1, 5)


def asked(expression: str, value: Any) -> bool:
    ctx = Context(StepScope("t", "r", ScriptedServices({}, None), logging.getLogger()))
    ctx.bind(Message(), "")  # type: ignore[arg-type]  # no more of it is looked at
    return CelPredicate(expression, branch="big")(value, ctx)


@pytest.mark.parametrize(
    ("expression", "value", "taken"),
    [
        ("x > 0", {"x": 1}, True),
        ("has(value.x)", {}, False),
        ("value == null", None, True),
        ("key == 'ann' && headers['tenant'] == 'a' && timestamp == 5", 3, True),
        ("headers['empty'] == ''", 3, True),
        ("x > 0 || true", {}, True),
    ],
)
def test_a_predicate_sees_the_record(expression: str, value: Any, taken: bool) -> None:
    assert asked(expression, value) is taken


@pytest.mark.parametrize(
    ("expression", "value", "told"),
    [
        ("value.x > 0", {}, "branch big: 'value.x > 0': there is no 'x'; ask has() first"),
        ("x", {"x": 1}, "branch big: 'x' gives 1; a predicate gives true or false"),
        ("10 / x > 1", {"x": 0}, "branch big: '10 / x > 1': division by zero"),
        ("10 % x > 1", {"x": 0}, "branch big: '10 % x > 1': "),
        ("x + 1 > 0", {"x": 2**63 - 1}, "branch big: 'x + 1 > 0': "),
        ("x > 0", {"x": "1"}, "branch big: 'x > 0': No such overload"),
    ],
)
def test_what_a_predicate_can_t_answer_is_a_failure_that_names_it(expression: str, value: Any, told: str) -> None:
    with pytest.raises(RecordFailure) as raised:
        asked(expression, value)
    assert str(raised.value).startswith(told)


def test_what_is_no_cel_is_told_when_it_is_written() -> None:
    with pytest.raises(InvalidTopology, match="'x >' is no CEL"):
        CelPredicate("x >", branch="big")
