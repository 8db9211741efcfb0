"""Every span, attribute and header name that SAGE emits: OpenTelemetry semantic conventions, revision 1.45.

A new revision is a change of this file alone. The names are written out because the released Python package of the
conventions is one revision behind.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "sage"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.45.0"

# W3C Trace Context and Baggage, as Kafka headers
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

# messaging
MESSAGING_SYSTEM: Final = "messaging.system.name"
KAFKA: Final = "kafka"
CREATE: Final = "create"
"""The operation that gives a new record its context, and the span's name: nobody knows the topic yet."""
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
BATCH_COUNT: Final = "messaging.batch.message_count"
BODY_SIZE: Final = "messaging.message.body.size"
OFFSET: Final = "kafka.offset"
MESSAGE_KEY: Final = "kafka.message.key"
TOMBSTONE: Final = "kafka.message.tombstone"

# generative AI
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
EMBEDDING_DIMENSION: Final = "gen_ai.embeddings.dimension.count"
DATA_SOURCE: Final = "gen_ai.data_source.id"
RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
RETRIEVAL_QUERY: Final = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"

# common
ERROR_TYPE: Final = "error.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# SAGE's own
STEP: Final = "sage.step"
RECORD_ID: Final = "sage.record.id"

# standard variables
CAPTURE_CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def process_span(topic: str) -> str:
    """A stage's work on one record."""
    return f"process {topic}"


def send_span(topic: str) -> str:
    """The production of one record."""
    return f"send {topic}"


def poll_span(topic: str) -> str:
    """The fetch of a batch."""
    return f"poll {topic}"


def commit_span(topic: str) -> str:
    """The commit of a group's offsets."""
    return f"commit {topic}"


def chat_span(model: str) -> str:
    """One chat completion."""
    return f"chat {model}"


def embeddings_span(model: str) -> str:
    """One call of an embedder."""
    return f"embeddings {model}"


def retrieval_span(data_source: str) -> str:
    """One search of a collection."""
    return f"retrieval {data_source}"
