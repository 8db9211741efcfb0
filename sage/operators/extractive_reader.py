"""Answers that are sentences of the passages, word for word, without any model that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sage.llm.text.extract import best_sentences
from sage.model.documents import Citation, Document
from sage.operators.record import as_record, required
from sage.spec.component import Operator
from sage.spec.context import Context

EXTRACTIVE = "extractive"
"""What ``model`` says of an answer that was taken from a passage."""


class ExtractiveReader(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write as ``answer`` the sentences of ``documents`` that answer ``query`` best.

    ``model`` is ``extractive``, and ``citations`` holds the sentences with their documents. Without passages the
    answer is empty.
    """

    class Config(BaseModel):
        """How much is picked."""

        model_config = ConfigDict(extra="forbid")

        sentences: int = Field(default=1, ge=1, description="Sentences in an answer at most.")

    def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with ``answer``, ``model`` and ``citations``.

        Raises:
            KeyError: the record has no ``query`` or no ``documents``.
        """
        record = as_record(value)
        query = required(record, "query", hint="Is the question in a field called query?")
        documents = required(record, "documents", hint="Is a retriever upstream?")
        return {**record, **extractive_answer(query, documents, self.config.sentences)}


def extractive_answer(query: str, documents: Sequence[Document], sentences: int = 1) -> dict[str, Any]:
    """The fields of an extractive answer, which says of itself that it is one."""
    found = best_sentences(query, documents, count=sentences)
    found.sort(key=lambda extract: extract.position)
    return {
        "answer": " ".join(extract.text for extract in found),
        "model": EXTRACTIVE,
        "citations": [Citation(document_id=extract.document_id, quote=extract.text) for extract in found],
    }
