"""The control topics, all under one prefix, so that several clusters of workers can share brokers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sage.errors import InvalidTopology

DEFAULT_PREFIX: Final = "__sage"
PREFIX_VARIABLE: Final = "SAGE_CONTROL_PREFIX"

_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True)
class ControlTopics:
    """Names of the topics that hold what shall run and what runs.

    Raises:
        InvalidTopology: the prefix has characters that it must not have.
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise InvalidTopology(
                f"control prefix {self.prefix!r}: only letters, digits, '_' and '-' are allowed; dots are ours"
            )

    @property
    def topologies(self) -> str:
        """Deployments and pointers: one partition, compacted, so that all writes have one order."""
        return f"{self.prefix}.topologies"

    @property
    def status(self) -> str:
        """What workers say: compacted, stamped with the broker's time."""
        return f"{self.prefix}.status"

    @property
    def logs(self) -> str:
        """What workers log, for a day."""
        return f"{self.prefix}.logs"

    @property
    def all(self) -> tuple[str, str, str]:
        """All of them."""
        return (self.topologies, self.status, self.logs)

    def deployer_id(self, topology: str) -> str:
        """The transactional id of whoever writes what is desired of ``topology``: the next one fences the last.

        Raises:
            InvalidTopology: the topology has the prefix as its name: the control topics would be taken for its own, and
                purged with it.
        """
        if topology == self.prefix:
            raise InvalidTopology(
                "is the prefix of this cluster's control topics; give the topology another name, "
                f"or the cluster another prefix ({PREFIX_VARIABLE})",
                where=topology,
            )
        return f"{self.prefix.lstrip('_')}-deploy-{topology}"
