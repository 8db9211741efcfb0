"""What a topology may say and this version can't run yet: told plainly, never faked."""

from __future__ import annotations

from sage.errors import InvalidTopology, NotInThisVersion, SageError
from sage.graph.topology import Step, Topology

_KINDS = {
    "window": "windows",
    "join": "joins",
}


def refuse_unsupported(topology: Topology) -> None:
    """Raise for features that are documented and not there.

    Raises:
        NotInThisVersion: one of them is used; ``InvalidTopology`` with all of them where there are more.
    """
    problems: list[SageError] = []
    for step in topology.steps:
        problems += _step_problems(step)
    if problems:
        raise InvalidTopology.of(problems)


def _step_problems(step: Step) -> list[SageError]:
    problems: list[SageError] = []
    if step.kind in _KINDS:
        problems.append(NotInThisVersion(f"{_KINDS[step.kind]} are not in this version; remove it", where=step.where))
    return problems
