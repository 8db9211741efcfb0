"""A plan as JSON, and its hash: what is stored, shown and compared. Never a secret, never code."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from types import CodeType
from typing import Any

import orjson
from pydantic import BaseModel

from sage.graph.topology import Step
from sage.plan.plan import Plan, Stage
from sage.spec.config import secrets_of
from sage.spec.settings import MemoryConfig
from sage.spec.shape import is_component
from sage.spec.variables import is_reference

FORMAT = 1
"""The version of the JSON form."""

_MASK = "***"


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
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def fingerprint(target: Any) -> str:
    """A hash of a function's or class's source; empty for what has none (``union``, names of fields, C code)."""
    while isinstance(target, functools.partial):
        target = target.func
    if target is None or isinstance(target, str):
        return ""
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
        "steps": [_step(step) for step in stage.steps],
        "execution": stage.execution,
        "inputs": [asdict(i) for i in stage.inputs],
        "outputs": [asdict(output) for output in stage.outputs],
        "group": stage.group,
        "options": stage.options.as_written(),
        "ordering": stage.ordering,
        "concurrency": stage.concurrency,
        "reasons": list(stage.reasons),
    }


def _step(step: Step) -> dict[str, Any]:
    secrets = _literal_secrets(step.target.Config, step.config) if is_component(step.target) else []
    return {
        "name": step.name,
        "kind": step.kind,
        "target": _target(step.target, step.reference),
        "fingerprint": fingerprint(step.target),
        "config": _masked(step.config, secrets),
        "options": step.options.as_written(),
        "branches": {name: [_target(p, ""), fingerprint(p)] for name, p in step.branches.items()},
        "default_branch": step.default_branch,
    }


def _target(target: Any, reference: str) -> str:
    if target is None or isinstance(target, str):
        return target or ""
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
        return _MASK
    if isinstance(value, Mapping):
        return {k: _masked(v, [path[1:] for path in secrets if path[:1] == (k,)]) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(v, [path[1:] for path in secrets if path[:1] == (i,)]) for i, v in enumerate(value)]
    return value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
