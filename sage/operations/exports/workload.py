"""What the container exports share: the topology as a file, and what a worker of it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sage.graph.yaml import write_topology
from sage.plan.plan import Plan
from sage.spec.variables import UnsetVariable, names_in, resolve
from sage.version import __version__

IMAGE: Final = f"sage-streams:{__version__}"
FOLDER: Final = "/etc/sage"
DATA: Final = "/var/lib/sage"
DRAIN_SECONDS: Final = 25
"""What ``sage topology run`` takes to drain after SIGTERM, at most."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A topology and how a process of it is started.

    Attributes:
        text: the topology as YAML; secrets stay ``${VAR}``.
        variables: what the process looks for in its environment.
        optional: those of them that have a default wherever they stand.
        most: how many processes can be of use: the most partitions that a stage reads, 1 where only brokers know.
    """

    name: str
    text: str
    variables: tuple[str, ...]
    most: int
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: Plan) -> Workload:
        """The plan's. Raises InvalidTopology where a step's code can't be named in a file."""
        text = write_topology(plan.topology)
        widths = [i.partitions or 1 for stage in plan.stages for i in stage.inputs]
        variables = tuple(names_in(text))
        optional = frozenset(name for name in variables if not _is_needed(name, text, variables))
        return cls(plan.name, text, variables, max(widths, default=1), optional)

    @property
    def file_name(self) -> str:
        """Of the topology."""
        return f"{self.name}.yaml"

    @property
    def arguments(self) -> list[str]:
        """After ``sage``."""
        return ["topology", "run", f"{FOLDER}/{self.file_name}", f"--data-dir={DATA}"]


def _is_needed(name: str, text: str, variables: Sequence[str]) -> bool:
    """Whether ``text`` can't do without one of its variables."""
    try:
        resolve(text, {other: "set" for other in variables if other != name})
    except UnsetVariable:
        return True
    return False
