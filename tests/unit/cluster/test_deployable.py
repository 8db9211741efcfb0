"""What keeps a plan from being deployed; secrets are in ``tests/unit/test_secrets_stay_hidden.py``."""

from __future__ import annotations

import pytest

from sage.cluster.deployable import refuse_undeployable
from sage.errors import InvalidTopology, NotImportable
from sage.plan.planner import compile_plan
from tests.unit.cluster.pipelines import environment, shout, two_sources


def test_a_name_that_was_made_up_by_counting_is_refused_with_what_it_would_do() -> None:
    env = environment()
    env.from_topic("qa-in").map(shout).map(shout).to("qa-out")
    with pytest.raises(InvalidTopology, match=r"'shout-2' was made up by counting.*Name it") as refused:
        refuse_undeployable(compile_plan(env.build()))
    assert "test_deployable.py" in str(refused.value)


def test_names_of_functions_and_given_ones_are_fine() -> None:
    env = environment()
    env.from_topic("qa-in").map(shout).map(shout, name="shout-2").to("qa-out")
    refuse_undeployable(compile_plan(env.build()))


def test_a_lambda_is_refused_unless_it_runs_here() -> None:
    env = environment()
    env.from_topic("qa-in").map(lambda value: value, name="same").to("qa-out")
    plan = compile_plan(env.build())
    with pytest.raises(NotImportable, match="workers cannot import a lambda"):
        refuse_undeployable(plan)
    refuse_undeployable(plan, caller=("same",))


def test_two_sources_that_no_worker_can_have_both_of_are_refused_with_the_way_out() -> None:
    plan = two_sources({"disk": "a"}, {"disk": "b"})
    with pytest.raises(
        InvalidTopology, match=r"source 'right' wants .* disk=b, and source 'left' .* disk=a"
    ) as refused:
        refuse_undeployable(plan)
    assert "a topology of its own that writes to a topic" in str(refused.value)
    assert 'step "right"' in str(refused.value)
    refuse_undeployable(plan, caller=("right",))


@pytest.mark.parametrize("other", [{}, {"disk": "a"}, {"zone": "x"}])
def test_sources_whose_labels_one_worker_can_have_are_fine(other: dict[str, str]) -> None:
    refuse_undeployable(two_sources({"disk": "a"}, other))
