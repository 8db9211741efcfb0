"""JSON Schema of the whole YAML file, the installed components' configurations included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from sage.errors import InvalidTopology
from sage.graph.yaml.reader import TOP_LEVEL, VERSION
from sage.graph.yaml.steps import KINDS, LATER
from sage.spec.component import Operator
from sage.spec.options import Guarantee, Options
from sage.spec.registry import ComponentKind, Registry
from sage.spec.schema import component_schema, model_schema
from sage.spec.settings import KAFKA_ALLOWED, MemoryConfig, TopicsConfig, TopicSinkConfig, TopicSourceConfig

_NAME = {"type": "string", "pattern": "^[a-z0-9_-]+$"}
_REFERENCE = {"type": "string", "pattern": ":", "description": "package.module:name, or file.py:name."}
_INPUT = {"type": "string", "pattern": r"^[a-z0-9_-]+(\.[a-z0-9_-]+)?$", "description": "A step, or step.branch."}


def topology_schema(registry: Registry | None = None) -> dict[str, Any]:
    """The schema. Loads every registered component; one that can't be imported here gets any configuration."""
    definitions: dict[str, Any] = {}
    known = registry or Registry.installed()
    step = _step_schema(known, definitions)
    properties: dict[str, Any] = {
        "version": {"const": VERSION},
        "name": {**_NAME, "description": "The topology's name; its topics and groups begin with it."},
        "guarantee": {"enum": list(get_args(Guarantee)), "default": "at_least_once"},
        "defaults": _hoisted(model_schema(Options), definitions),
        "topics": _hoisted(model_schema(TopicsConfig), definitions),
        "memory": _hoisted(model_schema(MemoryConfig), definitions),
        "kafka": {
            "type": "object",
            "properties": {name: {"type": ["string", "number", "boolean"]} for name in KAFKA_ALLOWED},
            "additionalProperties": False,
        },
        "moved": {"type": "object", "additionalProperties": _NAME, "description": "Old step name: new step name."},
        "steps": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": _NAME["pattern"]},
            "additionalProperties": {"$ref": "#/$defs/step"},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "SAGE topology",
        "type": "object",
        "properties": {key: properties[key] for key in TOP_LEVEL},
        "required": ["name", "steps"],
        "additionalProperties": False,
        "$defs": {**definitions, "step": step},
    }


def _step_schema(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    operators = _names(registry, "operator")
    inputs = {"anyOf": [_INPUT, {"type": "array", "items": _INPUT, "minItems": 1}]}
    kinds: dict[str, Any] = {
        "source": _names(registry, "source", "topic"),
        "sink": _names(registry, "sink", "topic"),
        "operator": operators,
        "map": operators,
        "flatmap": operators,
        "filter": operators,
        "map_batches": _REFERENCE,
        "key_by": {"type": "string", "description": "A field, or package.module:function."},
        "route": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
        "process": operators,
        "union": {"anyOf": [{"type": "array", "items": _INPUT, "minItems": 1}, {"type": ["null", "boolean"]}]},
    }
    options = _hoisted(model_schema(Options), definitions)["properties"]
    options["parallelism"] = {**options["partitions"], "description": "Another name of partitions."}
    own = {
        "default": _NAME,
        "state": {**_REFERENCE, "description": "The pydantic model of one key's state, of a process step."},
        "ttl": {"type": ["string", "number"], "description": "How long an unchanged key is kept, of a process step."},
        "on_timer": {**_REFERENCE, "description": "Called when a timer is due, of a process step."},
        "max_hops": {"type": "integer", "minimum": 1, "description": "How often a record may come back, of a union."},
    }
    return {
        "type": "object",
        "properties": {**kinds, "from": inputs, "config": {"type": "object"}, **own, **options},
        "oneOf": [{"required": [kind]} for kind in KINDS if kind not in LATER],
        "additionalProperties": False,
        "allOf": _config_rules(registry, definitions),
    }


def _names(registry: Registry, kind: ComponentKind, *own: str) -> dict[str, Any]:
    return {"anyOf": [{"enum": [*registry.names(kind), *own]}, _REFERENCE]}


def _config_rules(registry: Registry, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """For each registered component: where a step uses it, its ``config`` has the component's schema."""
    rules = [
        _rule("source", "topic", _hoisted(model_schema(TopicSourceConfig), definitions)),
        _rule("sink", "topic", _hoisted(model_schema(TopicSinkConfig), definitions)),
    ]
    kinds: tuple[ComponentKind, ...] = get_args(ComponentKind)
    for kind in kinds:
        for entry in registry.entries(kind):
            try:
                component = entry.load()
            except InvalidTopology:  # an extra that isn't installed here; the worker may have it
                continue
            prefix = f"{kind}.{entry.name}."
            config = component_schema(component, definitions=f"#/$defs/{prefix}")
            config = _hoisted(config, definitions, prefix)
            uses = ("operator", "map", "flatmap", "filter", "process") if issubclass(component, Operator) else (kind,)
            rules += [_rule(use, entry.name, config) for use in uses]
    return rules


def _rule(kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    needed = ["config"] if config.get("required") else []
    return {
        "if": {"properties": {kind: {"const": name}}, "required": [kind]},
        "then": {"properties": {"config": config}, "required": needed},
    }


def _hoisted(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The schema without its own definitions, which go to the document's."""
    for name, definition in schema.pop("$defs", {}).items():
        definitions[prefix + name] = definition
    return schema
