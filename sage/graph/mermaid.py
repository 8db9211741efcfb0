"""A topology as a Mermaid flow chart."""

from __future__ import annotations

from sage.graph.topology import Step, Topology

_SHAPES = {
    "source": ("([", "])"),
    "sink": ("([", "])"),
    "route": ("{", "}"),
    "union": ("((", "))"),
}


def to_mermaid(topology: Topology) -> str:
    """The graph as text for Mermaid: one node a step, branches named on their arrows."""
    ids = {step.name: f"s{index}" for index, step in enumerate(topology.steps)}
    lines = ["flowchart LR"]
    lines += [f"  {ids[step.name]}{_node(step)}" for step in topology.steps]
    for step in topology.steps:
        for given in step.inputs:
            arrow = "-->" if given.branch is None else f"-- {given.branch} -->"
            lines.append(f"  {ids[given.step]} {arrow} {ids[step.name]}")
    return "\n".join(lines) + "\n"


def _node(step: Step) -> str:
    before, after = _SHAPES.get(step.kind, ("[", "]"))
    label = step.name
    if step.is_topic:
        label += f"<br/>topic {step.config['topic']}"
    elif step.reference:
        label += f"<br/>{step.reference}"
    text = label.replace('"', "#quot;")
    return f'{before}"{text}"{after}'
