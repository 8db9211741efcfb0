"""What whoever waits for the workers is told."""

from __future__ import annotations

import pytest

from sage.cluster.progress import Preflight
from sage.cluster.status import Check, Problem
from sage.errors import InvalidTopology

UNSET = Problem(
    "OPENAI_API_KEY is not set (on worker w2). Set it there, or use model: local/smollm2.",
    "rag.yaml:11:86 steps.generate.config.api_key",
    "SAGE301",
)
MISSING = Problem("collection 'nope' does not exist", 'rag step "retrieve"', "SAGE203")


def refused(**checks: Check) -> InvalidTopology:
    preflight = Preflight(checks)
    with pytest.raises(InvalidTopology) as found:
        preflight.raise_if_none_can("rag")
    return found.value


def test_a_problem_is_told_with_its_own_place_and_code_and_its_worker_once() -> None:
    error = refused(w2=Check.of(1, "unready", [UNSET]))
    assert (str(error), error.exit_code) == (
        "rag.yaml:11:86 steps.generate.config.api_key: OPENAI_API_KEY is not set (on worker w2). Set it there, or use "
        "model: local/smollm2. [SAGE301]",
        3,
    )


def test_a_worker_is_named_before_the_code_where_the_problem_does_not() -> None:
    error = refused(w1=Check.of(1, "unready", [MISSING]))
    assert str(error) == "rag step \"retrieve\": collection 'nope' does not exist (on worker w1) [SAGE203]"
    assert error.exit_code == 4, "not found"


def test_problems_of_several_kinds_are_an_invalid_topology() -> None:
    error = refused(w1=Check.of(1, "unready", [MISSING]), w2=Check.of(1, "unready", [UNSET]))
    assert error.exit_code == 3
    assert [line[-9:] for line in str(error).splitlines()] == ["[SAGE203]", "[SAGE301]"]


@pytest.mark.parametrize("code", ["", "SAGE999"])
def test_what_has_no_code_of_ours_is_an_invalid_topology_with_the_topology_for_a_place(code: str) -> None:
    error = refused(w1=Check.of(1, "incompatible", [Problem("shop:work differs", code=code)]))
    assert (str(error), error.exit_code) == ("rag: shop:work differs (on worker w1) [SAGE101]", 3)


def test_lines_of_an_older_worker_are_told_as_they_are() -> None:
    error = refused(w1=Check(1, ("shop:work differs",), "incompatible"))
    assert str(error) == "rag: shop:work differs (on worker w1) [SAGE101]"


def test_one_worker_that_can_run_it_is_enough() -> None:
    preflight = Preflight({"w1": Check(1), "w2": Check.of(1, "unready", [UNSET])})
    preflight.raise_if_none_can("rag")
    assert preflight.problems == [str(UNSET)]
