"""A deployed version of a topology: immutable, never code, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType, UnionType
from typing import Any, Final

import orjson

from sage.errors import InvalidTopology, UnknownName
from sage.plan.decoding import Loader, plan_from_json
from sage.plan.encoding import FORMAT as PLAN_FORMAT
from sage.plan.plan import Plan
from sage.spec.suggest import hint

FORMAT = 1
"""The version of the stored form; a worker refuses a newer one."""

Kinds = Mapping[str, type | UnionType]

_KINDS: Final[Kinds] = {
    "name": str, "version": int, "plan": dict, "code": dict, "caller": list, "created_at": int,
}  # fmt: skip


class NewerRecord(InvalidTopology):
    """A control record that a newer SAGE wrote, for its own kind: nothing that this one may write over."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One compiled plan, as the control topic keeps it under ``name@version``.

    Attributes:
        plan: ``Plan.to_json()``, its ``hash`` included. Workers never plan.
        code: what the plan's code was when it was deployed, as ``sage.cluster.code.code_of`` gives it:
            ``package.module:function`` -> a digest of its source, ``distribution`` -> version, and ``step:<name>`` ->
            a digest of all that the step calls. A worker with other code reports it and does not join.
        caller: steps that run in the process that deployed, such as a ``collect``; workers leave them alone.
        created_by: ``user@host``.
        created_at: milliseconds since the epoch.
        message: what the deployer said of it.
    """

    name: str
    version: int
    plan: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)
    caller: tuple[str, ...] = ()
    created_by: str = ""
    created_at: int = 0
    message: str = ""

    @property
    def key(self) -> bytes:
        """Where it stands in the topic."""
        return f"{self.name}@{self.version}".encode()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of its stages, in topological order."""
        return tuple(stage["name"] for stage in self.plan["stages"])

    def decoded(self, load: Loader | None = None) -> Plan:
        """Its plan, the code imported by ``load`` (but that of the caller's steps); without one nothing is imported.

        Raises:
            InvalidTopology: it is damaged, or code can't be loaded.
        """
        return plan_from_json(self.plan, load=load, elsewhere=self.caller)

    def stage_of(self, name: str) -> str:
        """The stage that runs a step (or the stage itself), by name. Raises UnknownName."""
        for stage in self.plan["stages"]:
            if name == stage["name"] or name in stage["steps"]:
                return str(stage["name"])
        raise UnknownName(f"no step {name!r}; {hint(name, self.stages, what='stages')}", where=self.name)

    def encode(self) -> bytes:
        """As it is written."""
        return orjson.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> Deployment:
        """What ``encode`` wrote.

        Raises:
            InvalidTopology: it is of a newer SAGE, or nothing that SAGE wrote.
        """
        fields = read_fields(data, "deployment", FORMAT, _KINDS)
        return cls(**{**fields, "caller": tuple(fields.get("caller", ()))})

    def refuse_unreadable(self) -> None:
        """Raise for a plan that is read here without being decoded, and can't be: whoever looks into it would end.

        Raises:
            InvalidTopology: it is of a newer SAGE, or nothing that SAGE wrote.
        """
        if (written := self.plan.get("format", 0)) > PLAN_FORMAT:
            raise InvalidTopology(f"its plan is of a newer SAGE (format {written}); upgrade this one")
        try:
            _look_through(self.plan)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidTopology(f"its plan was not written by SAGE ({type(error).__name__}: {error})") from error


def _look_through(plan: Mapping[str, Any]) -> None:
    """Raise what looking into it would raise."""
    for stage in plan["stages"]:
        for name in ("name", "execution", "group"):
            stage[name].strip()
        for step in stage["steps"]:
            step.strip()
        for given in stage["inputs"]:
            given["topic"].strip(), given["partitions"]
        for output in stage["outputs"]:
            output["topic"].strip()
        dict(stage["options"].get("labels") or {})
    for step in plan["steps"]:
        step["name"].strip()
    for tasks in plan["source_tasks"].values():
        len(tasks)
    plan["moved"].items()
    plan["hash"].strip()


def read_fields(
    data: bytes, what: str, known: int, kinds: Kinds = MappingProxyType({})
) -> dict[str, Any]:  # fmt: skip
    """The fields of a control record, its format checked and taken out; those of ``kinds`` are of these types.

    Raises:
        NewerRecord: it is of a newer SAGE.
        InvalidTopology: it is nothing that SAGE wrote.
    """
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidTopology(f"a {what} in the control topic is no JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(written := fields.pop("format", None), int):
        raise InvalidTopology(f"a {what} in the control topic was not written by SAGE")
    if written > known:
        raise NewerRecord(f"a {what} in the control topic is of a newer SAGE (format {written}); upgrade this one")
    for name, kind in kinds.items():
        if name in fields and not isinstance(fields[name], kind):
            raise InvalidTopology(f"a {what} in the control topic is damaged: its {name} is {fields[name]!r}")
    return fields
