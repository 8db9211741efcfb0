"""A plan as JSON, and its hash: what is stored, shown, compared and read back. Never a secret, never code.

``decoding`` is the way back.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import CodeType
from typing import Any

import orjson
from pydantic import BaseModel

from sage.graph.topology import Origin, Step
from sage.model.secrets import HIDDEN, without_userinfo
from sage.plan.plan import Plan, Stage
from sage.spec.config import secrets_of
from sage.spec.reference import reference_of
from sage.spec.settings import MemoryConfig
from sage.spec.shape import is_component
from sage.spec.variables import is_reference

FORMAT = 1
"""The version of the JSON form."""


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values."""
    topology = plan.topology
    return {
        "format": FORMAT,
        "name": topology.name,
        "guarantee": topology.guarantee,
        "defaults": topology.defaults.as_written(),
        "topic_settings": asdict(topology.topics),
        "memory": _masked(topology.memory, _literal_secrets(MemoryConfig, topology.memory)),
        "kafka": dict(topology.kafka),
        "moved": dict(topology.moved),
        "steps": [_step(step) for step in topology.steps],
        "stages": [_stage(stage) for stage in plan.stages],
        "topics": [{**asdict(topic), "config": dict(sorted(topic.config.items()))} for topic in plan.topics],
        "external": list(plan.external),
        "source_tasks": {name: list(tasks) for name, tasks in plan.source_tasks.items()},
    }


def plan_hash(plan: Plan) -> str:
    """The same for plans that run the same code on the same topics in the same way; in every process."""
    content = plan_json(plan)
    for stage in content["stages"]:
        del stage["reasons"]
    for step in content["steps"]:
        del step["origin"], step["places"]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


@dataclass(frozen=True)
class Elsewhere:
    """Stands for code of a stored plan that this process did not import: it can be compared, and not called.

    Attributes:
        reference: ``package.module:name``, or a registered name.
        fingerprint: of its source, where it was deployed.
        schema: of a state model: its JSON Schema.
    """

    reference: str
    fingerprint: str = ""
    schema: Any = None


def fingerprint(target: Any) -> str:
    """A hash of a function's or class's source; empty for what has none (``union``, names of fields, C code)."""
    while isinstance(target, functools.partial):
        target = target.func
    if target is None or isinstance(target, str):
        return ""
    if isinstance(target, Elsewhere):
        return target.fingerprint
    candidates = target.__mro__[:-1] if isinstance(target, type) else (target, type(target))
    for candidate in candidates:
        try:
            return _digest(inspect.getsource(candidate).encode())
        except (OSError, TypeError):
            # No source file: typed at a prompt, or made at run time. Its byte code says the same.
            members = vars(candidate).values() if isinstance(candidate, type) else (candidate,)
            codes = [member.__code__ for member in members if inspect.isfunction(member)]
            if codes:
                return _digest(b"".join(_code_bytes(code) for code in codes))
    return ""


def _code_bytes(code: CodeType) -> bytes:
    """A code object's instructions, names and constants, those of the functions inside it included."""
    constants = [item for item in code.co_consts if not inspect.iscode(item)]
    inner = b"".join(_code_bytes(item) for item in code.co_consts if inspect.iscode(item))
    return code.co_code + repr((code.co_names, constants)).encode() + inner


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "steps": [step.name for step in stage.steps],
        "execution": stage.execution,
        "inputs": [asdict(i) for i in stage.inputs],
        "outputs": [asdict(output) for output in stage.outputs],
        "group": stage.group,
        "options": stage.options.as_written(),
        "ordering": stage.ordering,
        "concurrency": stage.concurrency,
        "retry_topic": stage.retry_topic,
        "journal_topic": stage.journal_topic,
        "changelog_topic": stage.changelog_topic,
        "reasons": list(stage.reasons),
    }


def _step(step: Step) -> dict[str, Any]:
    secrets = _literal_secrets(step.target.Config, step.config) if is_component(step.target) else []
    return {
        "name": step.name,
        "kind": step.kind,
        **_code(step.target, step.reference),
        "config": _masked(step.config, secrets),
        "options": step.options.as_written(),
        "inputs": [asdict(given) for given in step.inputs],
        "branches": [{"name": name, **_code(p, reference_of(p))} for name, p in step.branches.items()],
        "default_branch": step.default_branch,
        "state": None if step.state is None else {"model": _state_name(step), "schema": _state_schema(step.state)},
        "ttl": step.ttl,
        "on_timer": None if step.on_timer is None else _code(step.on_timer, reference_of(step.on_timer)),
        "max_hops": step.max_hops,
        "origin": None if step.origin is None else _origin(step.origin),
        "places": {path: _origin(place) for path, place in step.places.items() if _is_variable(step, path)},
    }


def _code(target: Any, reference: str) -> dict[str, Any]:
    """What is called: a function or class by its name and the hash of its source; a text as it is."""
    return {
        "target": _target(target, reference),
        "fingerprint": fingerprint(target),
        "literal": isinstance(target, str),
    }


def _origin(origin: Origin) -> list[Any]:
    return [origin.file, origin.line, origin.column, origin.path]


def _is_variable(step: Step, path: str) -> bool:
    """Whether a part of a step is resolved on the worker only, so that its place is needed there for messages."""
    value: Any = {"config": step.config}
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return isinstance(value, str) and is_reference(value)


def _state_name(step: Step) -> str:
    return step.state.reference if isinstance(step.state, Elsewhere) else _target(step.state, step.state_reference)


def _state_schema(model: Any) -> Any:
    """What a key's state looks like, so that a change of it is seen."""
    if isinstance(model, Elsewhere):
        return model.schema
    return model.model_json_schema() if isinstance(model, type) and issubclass(model, BaseModel) else None


def _target(target: Any, reference: str) -> str:
    if target is None or isinstance(target, str):
        return target or ""
    if isinstance(target, Elsewhere):
        return target.reference
    if reference:
        return reference
    while isinstance(target, functools.partial):
        target = target.func
    owner = target if hasattr(target, "__qualname__") else type(target)
    return f"{getattr(owner, '__module__', None) or 'builtins'}:{owner.__qualname__}"


def _literal_secrets(model: type[BaseModel], config: Mapping[str, Any]) -> list[tuple[str | int, ...]]:
    """The paths of the secrets that are written out instead of being variables."""
    return [path for path, _, text in secrets_of(model, config) if not is_reference(text)]


def _masked(value: Any, secrets: list[tuple[str | int, ...]]) -> Any:
    """A copy with asterisks where ``secrets`` lead: a literal password must not be stored anywhere."""
    if () in secrets:
        return HIDDEN
    if isinstance(value, Mapping):
        return {k: _masked(v, [path[1:] for path in secrets if path[:1] == (k,)]) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(v, [path[1:] for path in secrets if path[:1] == (i,)]) for i, v in enumerate(value)]
    return without_userinfo(value) if isinstance(value, str) else value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
