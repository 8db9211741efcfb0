"""``sage topology``: check, explain and export pipelines. Nothing here talks to Kafka."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import COUNT, DEFAULT_DATA_DIR
from sage.cli.terminal import terminal

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


Form = Literal["yaml", "mermaid", "asyncapi", "compose", "k8s", "keda"]

_WITH_BROKERS = frozenset({"asyncapi", "k8s", "keda"})
"""Forms that hold the brokers' address."""


def export(
    target: Target,
    /,
    *,
    form: Annotated[Form, Parameter(name=["--format", "-f"], help="What to print.")] = "yaml",
    to: Annotated[Path | None, Parameter(name="--to", help="A file; else standard output.")] = None,
    image: Annotated[str | None, Parameter(help="The container image, with the steps' code (compose, k8s).")] = None,
    replicas: Annotated[int, Parameter(help="Worker containers (compose, k8s).", validator=COUNT)] = 1,
    brokers: Annotated[str, Parameter(help="The brokers as seen from there (asyncapi, k8s, keda).")] = "kafka:9092",
) -> None:
    """Print a topology, whether it was written in Python or in YAML, for people and for other tools.

    yaml and mermaid are the graph; asyncapi its topics and who reads and writes them; compose and k8s workers that run
    it in containers, and keda what scales those by their lag. Secrets stay ${VARIABLES}. `-o json` gives the same as
    JSON: the objects of k8s as one list, which kubectl takes, and mermaid as a text.
    """
    from sage.operations.result_files import writing

    if form in _WITH_BROKERS and not any(address.strip() for address in brokers.split(",")):
        raise UsageError(f"topology export: --brokers is empty; {form} needs host:port of the brokers")
    shown = terminal()
    if form in {"yaml", "mermaid"}:
        text, value = _graph(_topology(target), form)
    else:
        text, value = _deployed(_plan(target), form, image, replicas, brokers)
    if shown.is_structured:
        text = shown.formatted(value)
    if to is None:
        shown.line(text.rstrip("\n"))
    else:
        with writing(to) as write:
            write(f"{text.rstrip()}\n")
        shown.note(f"wrote {to}")


def _graph(topology: Topology, form: Form) -> tuple[str, Any]:
    """The graph as text, and as a value."""
    if form == "yaml":
        from sage.graph.yaml import write_topology
        from sage.operations.exports.text import yaml_value

        text = write_topology(topology)
        return text, yaml_value(text)
    from sage.graph.mermaid import to_mermaid

    return to_mermaid(topology), {"mermaid": to_mermaid(topology)}


def _deployed(plan: Plan, form: Form, image: str | None, replicas: int, brokers: str) -> tuple[str, Any]:
    """What the form has of a plan as text, and as a value."""
    from sage.operations import exports
    from sage.operations.exports.text import yaml_text
    from sage.operations.exports.workload import IMAGE

    if form in {"compose", "k8s"} and str(plan.topology.memory.get("uri") or "embedded") == "embedded":
        terminal().note("memory is embedded: each container would have its own; set memory.uri for one that they share")
    if form == "k8s":
        objects = exports.kubernetes(plan, image=image or IMAGE, replicas=replicas, brokers=brokers)
        return yaml_text(objects), exports.kubernetes_list(objects)
    if form == "asyncapi":
        document = exports.asyncapi(plan, servers=brokers)
    elif form == "keda":
        document = exports.scaled_object(plan, brokers=brokers)
    else:
        document = exports.compose(plan, image=image or IMAGE, replicas=replicas)
    return yaml_text([document]), document


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
