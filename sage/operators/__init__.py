"""The built-in operators. Each is imported when it is first asked for, so that a help text stays fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.operators.chat_promptor import ChatPromptor as ChatPromptor
    from sage.operators.dense_retriever import DenseRetriever as DenseRetriever
    from sage.operators.document_parser import DocumentParser as DocumentParser
    from sage.operators.embedder import Embedder as Embedder
    from sage.operators.evaluator import Evaluator as Evaluator
    from sage.operators.extractive_reader import ExtractiveReader as ExtractiveReader
    from sage.operators.memory_writer import MemoryWriter as MemoryWriter
    from sage.operators.openai_generator import OpenAIGenerator as OpenAIGenerator
    from sage.operators.qa_promptor import QAPromptor as QAPromptor
    from sage.operators.text_splitter import TextSplitter as TextSplitter

_MODULES = {
    "ChatPromptor": "chat_promptor",
    "DenseRetriever": "dense_retriever",
    "DocumentParser": "document_parser",
    "Embedder": "embedder",
    "Evaluator": "evaluator",
    "ExtractiveReader": "extractive_reader",
    "MemoryWriter": "memory_writer",
    "OpenAIGenerator": "openai_generator",
    "QAPromptor": "qa_promptor",
    "TextSplitter": "text_splitter",
}

__all__ = [
    "ChatPromptor",
    "DenseRetriever",
    "DocumentParser",
    "Embedder",
    "Evaluator",
    "ExtractiveReader",
    "MemoryWriter",
    "OpenAIGenerator",
    "QAPromptor",
    "TextSplitter",
]

_OWN_STEP = "write it as a step of your own"
_MEMORY = "MemoryWriter and DenseRetriever keep and find what you give them"
_LATER = {
    "Agent": _OWN_STEP,
    "BM25Retriever": "use DenseRetriever",
    "HybridRetriever": "use DenseRetriever",
    "LongTermMemory": _MEMORY,
    "Refiner": _OWN_STEP,
    "Reranker": _OWN_STEP,
    "Router": "use the stream's route()",
    "SessionMemory": _MEMORY,
    "TransformersGenerator": "use OpenAIGenerator, with model: local/smollm2 or a server of yours",
}
"""Operators that a later version has, and what to do without them."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        # Of an AttributeError `from sage.operators import Agent` would not show the text.
        raise ImportError(f"{__name__}.{name} is not in this version; {_LATER[name]} [SAGE110]", name=__name__)
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
