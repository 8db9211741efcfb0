"""What is desired of a topology: the one record that all verbs change and all workers obey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Final, Literal, get_args

import orjson

from sage.cluster.deployment import Kinds, NewerRecord, read_fields

FORMAT = 1

DesiredState = Literal["running", "paused", "drained", "stopped", "deleted"]
"""``paused``: members stay, nothing is processed. ``drained``: sources give nothing more, all that is on its way is
finished, then as ``stopped``. ``stopped``: nobody is a member. ``deleted``: gone from the lists; its data stays."""

_KINDS: Final[Kinds] = {
    "name": str, "version": int, "candidate": int | None, "scale": dict, "restarts": dict, "leaving": list,
    "held": list, "offsets": dict, "revision": int, "changed_at": int,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leaving:
    """A stage that goes on until its input is drained (retries included), then leaves its group for good.

    Attributes:
        version: mostly an older one. It may be the running one as well: then the stage drains and leaves before the
            next version's takes its place, while a topic that it reads is made anew.
        after: stages of the older version that must have left before: they write what it reads.
    """

    version: int
    stage: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """The pointer of one topology, kept under its name.

    Attributes:
        version: the deployment that runs; 0 while there is only a candidate.
        candidate: a deployment that workers shall only check (``deploy --wait``); ``None`` is none.
        state: what shall become of it.
        scale: stage -> how many workers host it; stages not named have as many as can be of use.
        restarts: stage -> a number; an actor that was started under a smaller one is started anew.
        leaving: stages that drain and then leave.
        held: stages that stand still for now, while a topic that they write gets more partitions.
        offsets: group -> ``topic:partition`` -> next offset, kept when it was drained or stopped: Kafka forgets those
            of groups without members after some days, and then they are put back.
        at_rest: whether nobody was in its groups any more when ``offsets`` were written down: they are the last.
        revision: grows with each write; a deployer says which one it changes.
        changed_by, changed_at: ``user@host``, milliseconds since the epoch.
        reason: what was done, for ``history``.
    """

    name: str
    version: int
    state: DesiredState = "running"
    candidate: int | None = None
    scale: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    leaving: tuple[Leaving, ...] = ()
    held: tuple[str, ...] = ()
    offsets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    at_rest: bool = False
    revision: int = 0
    changed_by: str = ""
    changed_at: int = 0
    reason: str = ""

    @property
    def key(self) -> bytes:
        """Where it stands in the topic."""
        return self.name.encode()

    def encode(self) -> bytes:
        """As it is written."""
        return orjson.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> Desired:
        """What ``encode`` wrote. Raises InvalidTopology."""
        fields: dict[str, Any] = read_fields(data, "pointer", FORMAT, _KINDS)
        if unknown := fields.keys() - {each.name for each in dataclass_fields(cls)}:
            raise NewerRecord(f"a pointer says what this SAGE does not know ({', '.join(sorted(unknown))}); upgrade it")
        if fields.get("state", "running") not in get_args(DesiredState):
            raise NewerRecord(
                f"a pointer asks for a state that this SAGE does not know: {fields['state']!r}; upgrade it"
            )
        leaving = tuple(Leaving(**{**each, "after": tuple(each["after"])}) for each in fields.get("leaving", ()))
        return cls(**{**fields, "leaving": leaving, "held": tuple(fields.get("held", ()))})
