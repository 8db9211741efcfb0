"""``sage topology``: check, explain and export pipelines. Nothing here talks to Kafka."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sage.cli.options import DEFAULT_DATA_DIR
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.graph.topology import Topology
    from sage.plan.plan import Plan

Target = Annotated[
    str,
    Parameter(name="TARGET", help="A YAML file, file.py:attribute, package.module:attribute, or a file.py."),
]


def validate(
    target: Target,
    /,
    *,
    allow_missing_secrets: Annotated[bool, Parameter(help="Secrets that are not set here are not an error.")] = False,
) -> None:
    """Check a topology without running it: names, options, variables, secrets, the graph. Exits 3 when it is wrong."""
    from sage.operations.topologies import check

    shown = terminal()
    topology = _topology(target)
    plan = check(topology, os.environ, secrets=not allow_missing_secrets)
    if shown.is_structured:
        shown.data({"name": topology.name, "valid": True, "steps": len(topology.steps), "stages": len(plan.stages)})
    else:
        shown.line(f"{topology.name}: {len(topology.steps)} steps in {len(plan.stages)} stages, valid")


def plan(target: Target, /) -> None:
    """Show the stages and topics that a topology becomes; ``-o json`` is the whole compiled plan."""
    from sage.plan.explain import explain_rows

    shown = terminal()
    compiled = _plan(target)
    if shown.is_structured:
        shown.data(compiled.to_json())
        return
    columns = (
        Column("stage"),
        Column("steps", wide=True, show=_joined),
        Column("execution", "RUNS AS"),
        Column("reads", show=_joined),
        Column("writes", show=_joined),
        Column("concurrency", right=True),
        Column("reasons", "WHY", wide=True, show=_joined),
    )
    shown.rows([asdict(row) for row in explain_rows(compiled)], columns)
    shown.line()
    topics = [
        {"topic": topic.name, "partitions": topic.partitions, "config": dict(topic.config)} for topic in compiled.topics
    ]
    shown.rows(
        topics,
        (
            Column("topic"),
            Column("partitions", right=True),
            Column("config", show=lambda config: ", ".join(f"{name}={value}" for name, value in config.items())),
        ),
        empty="it makes no topics",
    )


def explain(target: Target, /) -> None:
    """Say why each step was fused with its neighbour, given a topic of its own, or parallelised."""
    from sage.plan.explain import explain as explain_plan
    from sage.plan.explain import explain_rows

    shown = terminal()
    compiled = _plan(target)
    if shown.is_structured:
        shown.data([asdict(row) for row in explain_rows(compiled)])
    else:
        shown.line(explain_plan(compiled).rstrip())


def schema() -> None:
    """Print the JSON Schema of topology files, with the options of every installed component."""
    from sage.graph.yaml import topology_schema

    terminal().data(topology_schema())


def export(
    target: Target,
    /,
    *,
    form: Annotated[Literal["yaml", "mermaid"], Parameter(name=["--format", "-f"], help="What to print.")] = "yaml",
    to: Annotated[Path | None, Parameter(name="--to", help="A file; else standard output.")] = None,
) -> None:
    """Print a topology, whether it was written in Python or in YAML, as YAML or as a Mermaid diagram."""
    topology = _topology(target)
    if form == "yaml":
        from sage.graph.yaml import write_topology

        text = write_topology(topology)
    else:
        from sage.graph.mermaid import to_mermaid

        text = to_mermaid(topology)
    if to is None:
        terminal().line(text.rstrip("\n"))
    else:
        to.write_text(text, encoding="utf-8")
        terminal().note(f"wrote {to}")


def _topology(target: str) -> Topology:
    from sage import app
    from sage.graph.topology import Topology

    found = app.load_target(target, environ=os.environ)
    return found if isinstance(found, Topology) else found.topology


def _plan(target: str) -> Plan:
    """The plan as a run would make it: sources say how they can be split."""
    from sage import app

    found = app.load_target(target, environ=os.environ)
    return app.environment_for(found, bootstrap_servers=None, data_dir=DEFAULT_DATA_DIR).plan()


def _joined(values: Any) -> str:
    return values if isinstance(values, str) else ", ".join(map(str, values)) or "-"
