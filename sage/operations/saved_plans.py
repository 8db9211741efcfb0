"""What ``sage topology plan`` compares, saves, and what ``sage topology deploy --plan`` takes up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sage.cluster.code import code_of, differences
from sage.cluster.control_log import ControlLog
from sage.cluster.deployable import refuse_undeployable
from sage.cluster.deploying import Wanted, compared
from sage.cluster.names import ControlTopics
from sage.errors import Conflict, InvalidTopology, NotFound
from sage.operations.result_files import write_json
from sage.plan.decoding import plan_from_json
from sage.plan.diff import PlanDiff, diff_plans
from sage.plan.plan import Plan
from sage.ports import KafkaClients
from sage.spec.registry import ComponentKind, Registry

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan beside what is deployed.

    Attributes:
        diff: what deploying it would change.
        version: the deployed one; 0 where there is none.
        revision: of the pointer that was looked at; 0 where there is none.
    """

    plan: Plan
    diff: PlanDiff
    version: int = 0
    revision: int = 0


def compare(clients: KafkaClients, topics: ControlTopics, plan: Plan) -> Comparison:
    """Compare a plan with what is deployed. Makes and writes nothing.

    Raises:
        NotImportable, InvalidTopology: it can't be deployed.
        Unreachable, Unauthorized: the brokers.
    """
    refuse_undeployable(plan)
    try:
        log = ControlLog(clients, topics)
    except NotFound:
        return Comparison(plan, diff_plans(None, plan))
    try:
        log.read_to_end()
        pointer = log.pointers.get(plan.name)
        diff = compared(log, Wanted.of(plan))
        return Comparison(plan, diff, *((0, 0) if pointer is None else (pointer.version, pointer.revision)))
    finally:
        log.close()


def save(path: Path, found: Comparison) -> None:
    """Write a compared plan, its code's digests and the revision that it was compared with.

    Raises:
        SageError: the file can't be written.
    """
    document = {
        "format": FORMAT,
        "plan": found.plan.to_json(),
        "code": code_of(found.plan),
        "version": found.version,
        "revision": found.revision,
        "diff": found.diff.to_json(),
    }
    write_json(path, document)


def load(path: Path) -> tuple[Plan, int]:
    """A saved plan with its code, and the revision that it was compared with.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it is no saved plan, or its code can't be imported here.
        Conflict: the code has changed since it was saved.
    """
    document = _read(path)
    try:
        plan = plan_from_json(document["plan"], load=_load_here)
        saved: Mapping[str, str] = document["code"]
        revision = int(document["revision"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidTopology(f"is no saved plan: {type(error).__name__}: {error}", where=str(path)) from error
    changed = differences(saved, code_of(plan))
    if changed or plan.hash != document["plan"].get("hash"):
        what = "; ".join(changed) or "it reads as another plan now"
        raise Conflict(f"the code has changed since this plan was saved: {what}; plan again", where=str(path))
    return plan, revision


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}; `sage topology plan TARGET --save {path}` makes one") from error
    except (OSError, ValueError) as error:
        raise InvalidTopology(f"is no saved plan: {error}", where=str(path)) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InvalidTopology("is no saved plan of this version of SAGE", where=str(path))
    return found


def _load_here(reference: str, component: ComponentKind) -> Any:
    return Registry.installed().load(component, reference, folder=Path.cwd())
