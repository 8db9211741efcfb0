"""Edges that go back: from a later step to a union that lets records around a bounded number of times."""

from __future__ import annotations

from collections.abc import Iterable

from sage.graph.topology import Input, Step


def back_edges(steps: Iterable[Step]) -> frozenset[tuple[str, Input]]:
    """(loop, what is sent back to it) for every input of a union with ``max_hops`` that comes from behind it."""
    by_name = {step.name: step for step in steps}
    behind: dict[str, set[str]] = {}
    for step in by_name.values():
        for given in step.inputs:
            behind.setdefault(given.step, set()).add(step.name)
    found: set[tuple[str, Input]] = set()
    for step in by_name.values():
        if step.kind == "union" and step.max_hops is not None:
            reached = _reached(step.name, behind)
            found |= {(step.name, given) for given in step.inputs if given.step in reached}
    return frozenset(found)


def _reached(start: str, behind: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for name in behind.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached
