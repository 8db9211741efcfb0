"""The plan for people: which steps share a stage and why, and what each stage reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

from sage.plan.plan import Plan, Stage


@dataclass(frozen=True, slots=True)
class ExplainRow:
    """One stage.

    Attributes:
        stage: its name.
        steps: its steps, in order; none for a bare copy.
        execution: source, sync, async or sink.
        reads, writes: topics.
        partitions: of what it writes; 0 where it writes nothing.
        concurrency: calls in flight per worker.
        reasons: why it was cut, fused, parallelised.
    """

    stage: str
    steps: tuple[str, ...]
    execution: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    partitions: int
    concurrency: int
    reasons: tuple[str, ...]


def explain_rows(plan: Plan) -> list[ExplainRow]:
    """The stages, in topological order."""
    partitions = {topic.name: topic.partitions for topic in plan.topics}
    return [_row(stage, partitions) for stage in plan.stages]


def explain(plan: Plan) -> str:
    """The stages as text, each with its topics and reasons."""
    lines = [f"{plan.name}: {len(plan.topology.steps)} steps in {len(plan.stages)} stages, {len(plan.topics)} topics"]
    for row in explain_rows(plan):
        label = " + ".join(row.steps) or row.stage
        width = f", {row.concurrency} at once" if row.concurrency > 1 else ""
        lines += ["", f"{label}  [{row.execution}{width}]"]
        if row.reads:
            lines.append(f"  reads   {', '.join(row.reads)}")
        if row.writes:
            count = f"{row.partitions} partition" + ("s" if row.partitions != 1 else "")
            lines.append(f"  writes  {', '.join(row.writes)} ({count})")
        lines += [f"  - {reason}" for reason in row.reasons]
    return "\n".join(lines) + "\n"


def _row(stage: Stage, partitions: dict[str, int]) -> ExplainRow:
    writes = tuple(output.topic for output in stage.outputs)
    return ExplainRow(
        stage=stage.name,
        steps=tuple(step.name for step in stage.steps),
        execution=stage.execution,
        reads=tuple(i.topic for i in stage.inputs),
        writes=writes,
        partitions=max((partitions[topic] for topic in writes), default=0),
        concurrency=stage.concurrency,
        reasons=stage.reasons,
    )
