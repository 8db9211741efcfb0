"""The seams: what the runtime and the operators need from the outside, and nothing of how it is done.

Each port has one contract suite in ``tests/contract`` that runs on every implementation.
"""

from sage.ports.hooks import (
    Clock,
    Span,
    Tracer,
)
from sage.ports.kafka import (
    OPERATIONS,
    Admin,
    Commit,
    CommitRefused,
    Consumer,
    DeliveryFailure,
    GroupMember,
    KafkaClients,
    Operation,
    Producer,
    ProducerFatal,
    RawMessage,
    RebalanceListener,
    Resource,
    TopicInfo,
    TopicSpec,
    TransactionAbortable,
)
from sage.ports.memory import (
    ScoredVector,
    StoredVector,
    VectorStore,
)
from sage.ports.models import (
    ChatModel,
    ChatRequest,
    ChatResponse,
    Checkable,
    Embedder,
)
from sage.ports.state import (
    StateStore,
    StateStores,
)

__all__ = [
    "OPERATIONS",
    "Admin",
    "ChatModel",
    "ChatRequest",
    "ChatResponse",
    "Checkable",
    "Clock",
    "Commit",
    "CommitRefused",
    "Consumer",
    "DeliveryFailure",
    "Embedder",
    "GroupMember",
    "KafkaClients",
    "Operation",
    "Producer",
    "ProducerFatal",
    "RawMessage",
    "RebalanceListener",
    "Resource",
    "ScoredVector",
    "Span",
    "StateStore",
    "StateStores",
    "StoredVector",
    "TopicInfo",
    "TopicSpec",
    "Tracer",
    "TransactionAbortable",
    "VectorStore",
]
