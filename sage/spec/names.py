"""From Python's names to the names of steps and registered components."""

from __future__ import annotations

import re

_ONE_WORD = (("OpenAI", "Openai"),)
"""Names with a capital inside that are one word."""

_ACRONYM_END = re.compile(r"([A-Z]+)([A-Z][a-z])")
_WORD_START = re.compile(r"([a-z0-9])([A-Z])")


def snake_case(name: str) -> str:
    """The name in snake case, as YAML and automatic step names have it.

    >>> [snake_case(name) for name in ("DenseRetriever", "QAPromptor", "OpenAIGenerator", "BM25Retriever", "_clean")]
    ['dense_retriever', 'qa_promptor', 'openai_generator', 'bm25_retriever', 'clean']
    """
    for brand, word in _ONE_WORD:
        name = name.replace(brand, word)
    name = _WORD_START.sub(r"\1_\2", _ACRONYM_END.sub(r"\1_\2", name))
    return name.lower().strip("_")
