"""A plan as an AsyncAPI 3.1.0 document: each topic a channel, each stage what it receives and sends (Kafka binding
0.5.0). So that people who never heard of SAGE can read and write its edges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sage.model.identity import SAGE_ID
from sage.plan.plan import Plan, Stage
from sage.plan.topics import AS_FOUND
from sage.version import __version__

ASYNCAPI = "3.1.0"
BINDING = "0.5.0"

_CONTENT = {"json": "application/json", "bytes": "application/octet-stream", "str": "text/plain"}


def asyncapi(plan: Plan, *, servers: str = "localhost:9092") -> dict[str, Any]:
    """The document as plain values.

    Args:
        servers: brokers, ``host:port`` separated by commas.
    """
    hosts = [host.strip() for host in servers.split(",") if host.strip()]
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": plan.name,
            "version": plan.hash[:12],
            "description": f"Topics of the topology {plan.name}, {plan.topology.guarantee.replace('_', ' ')}, by SAGE "
            f"{__version__}.",
        },
        "defaultContentType": "application/json",
        "servers": {f"broker{number}": {"host": host, "protocol": "kafka"} for number, host in enumerate(hosts, 1)},
        "channels": _channels(plan),
        "operations": _operations(plan),
        "components": {"messages": {"record": _record("json")}},
    }


def _channels(plan: Plan) -> dict[str, Any]:
    formats: dict[str, str] = {}
    for stage in plan.stages:
        formats |= {i.topic: i.format for i in stage.inputs} | {o.topic: o.format for o in stage.outputs}
    made = {topic.name: topic for topic in plan.topics}
    channels: dict[str, Any] = {}
    for topic in (*formats, plan.dead_letter_topic):
        kafka: dict[str, Any] = {"topic": topic, "bindingVersion": BINDING}
        if (spec := made.get(topic)) is not None:
            kafka["replicas"] = spec.replication_factor
            if spec.partitions != AS_FOUND:
                kafka["partitions"] = spec.partitions
        channels[_id(topic)] = {
            "address": topic,
            "messages": {"record": _record(formats.get(topic, "bytes"))},
            "bindings": {"kafka": kafka},
        }
    return channels


def _record(content: str) -> dict[str, Any]:
    """A record of an edge: any value, a key, and the headers that SAGE keeps."""
    headers = {
        "traceparent": {"type": "string", "description": "W3C trace context."},
        SAGE_ID: {"type": "string", "description": "The record's identity, the same in every replay."},
    }
    return {
        "contentType": _CONTENT.get(content, content),
        "payload": {},
        "headers": {"type": "object", "properties": headers},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": BINDING}},
    }


def _operations(plan: Plan) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for stage in plan.stages:
        for stage_input in stage.inputs:
            operations[_id(f"{stage.name}-receives-{stage_input.topic}")] = {
                **_operation("receive", stage_input.topic),
                "title": f"{stage.label()} reads {stage_input.topic}",
                "bindings": {"kafka": _group(stage)},
            }
        for topic in dict.fromkeys(output.topic for output in stage.outputs):
            operations[_id(f"{stage.name}-sends-{topic}")] = {
                **_operation("send", topic),
                "title": f"{stage.label()} writes {topic}",
            }
    return operations


def _operation(action: str, topic: str) -> dict[str, Any]:
    channel = f"#/channels/{_id(topic)}"
    return {"action": action, "channel": {"$ref": channel}, "messages": [{"$ref": f"{channel}/messages/record"}]}


def _group(stage: Stage) -> Mapping[str, Any]:
    return {"groupId": {"type": "string", "enum": [stage.group]}, "bindingVersion": BINDING}


def _id(text: str) -> str:
    """A key of the document: letters, digits, ``-`` and ``_`` only. Distinct topics stay distinct, as Kafka refuses
    names that differ in ``.`` and ``_`` alone."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)
