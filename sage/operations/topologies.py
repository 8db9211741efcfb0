"""What ``sage topology`` does: checks without running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Topology
from sage.graph.yaml import missing_secrets
from sage.plan.explain import explain_rows
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.plan.topics import AS_FOUND
from sage.ports import TopicSpec


def check(topology: Topology, environ: Mapping[str, str], *, secrets: bool) -> Plan:
    """Compile the plan of a topology that its reader has already validated.

    Raises:
        InvalidTopology: it can't be planned.
        MissingVariable: with ``secrets``, one that a step needs is not set in ``environ``.
    """
    problems: list[SageError] = list(missing_secrets(topology, environ)) if secrets else []
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InvalidTopology(f"{len(problems)} secrets are not set", problems=tuple(problems))
    return compile_plan(topology)


def stage_rows(plan: Plan) -> list[dict[str, Any]]:
    """The stages of a plan: what each reads and writes, how it runs, and why it was cut where it was."""
    return [asdict(row) for row in explain_rows(plan)]


def partitions_of(plan: Plan, topic: TopicSpec) -> str:
    """How many partitions a topic of a plan gets: a number, or which foreign topic decides."""
    if topic.partitions != AS_FOUND:
        return str(topic.partitions)
    deciding = (
        stage_input.topic
        for stage in plan.stages
        if topic.name in {stage.retry_topic, stage.journal_topic, stage.changelog_topic}
        for stage_input in stage.inputs
        if stage_input.partitions is None
    )
    return f"as {' or '.join(dict.fromkeys(deciding))}"
