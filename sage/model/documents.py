"""The shapes inside a question-answering record, for components that like names better than keys.

On the wire a record is one plain JSON object; these are ``TypedDict``s over it.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Message(TypedDict):
    """One chat message in OpenAI's shape."""

    role: str
    content: str


class Document(TypedDict):
    """One retrieved passage; ``score`` is a similarity, higher is nearer."""

    id: str
    text: str
    score: float
    metadata: dict[str, Any]


class Citation(TypedDict):
    """The words of a document that an answer stands on."""

    document_id: str
    quote: str


class Usage(TypedDict):
    """Tokens that a model call read and wrote."""

    input_tokens: int
    output_tokens: int


class QARecord(TypedDict, total=False):
    """The record of a question-answering pipeline; it grows along the way."""

    query: str
    id: str
    history: list[Message]
    documents: list[Document]
    messages: list[Message]
    answer: str
    usage: Usage
    model: str
    citations: list[Citation]
    expected: list[str]
    metrics: dict[str, float]
