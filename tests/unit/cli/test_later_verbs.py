"""Verbs of a later version say so, and what to type instead."""

from __future__ import annotations

import re

import pytest

from sage.cli.later import later_verb
from sage.cli.verbs import GROUPS, VERBS
from tests.unit.cli.conftest import Sage

ALONE = ["dashboard", "serve", "chat", "trace"]


@pytest.mark.parametrize("typed", ALONE)
def test_a_later_verb_is_one_line_and_2(sage: Sage, typed: str) -> None:
    found = sage(*typed.split(), "rag-qa")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"sage {typed} is not in this version")
    assert found.err.endswith(" [SAGE110]\n")
    assert len(found.err.splitlines()) == 1


def test_a_group_of_later_verbs_is_told_by_its_own_name(sage: Sage) -> None:
    assert sage("trace", "show", "--help").err == (
        "sage trace is not in this version; set OTEL_EXPORTER_OTLP_ENDPOINT, and look in Jaeger [SAGE110]\n"
    )


@pytest.mark.parametrize("typed", ALONE)
def test_what_is_to_be_typed_instead_exists(typed: str) -> None:
    error = later_verb(typed.split())
    assert error is not None
    for words in re.findall(r"`sage ([a-z ]+)", str(error)):
        found = tuple(words.split())
        assert found[:1] in VERBS or found[:2] in VERBS or found[0] in GROUPS, words


def test_verbs_that_are_there_are_not_called_later() -> None:
    assert [path for path in VERBS if later_verb(path)] == []
    assert later_verb(["demo", "--keep-up"]) is None
