"""Which sentences of the passages answer a question.

A sentence is as good as the rare words that it shares with the question, plus a bonus where it has what the
question asks for (a number for "how many", a time for "when"), plus what an embedder says of the two, if there is one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage.llm.text.sentences import sentences
from sage.llm.text.words import key_terms, numbers
from sage.model.documents import Document

if TYPE_CHECKING:
    from sage.ports import Embedder

_ASKS_NUMBER = re.compile(
    r"\bhow (many|much|long|often|far|old|large|big|late|early|soon)\b|\bwhat (percentage|amount|number|limit)\b"
    r"|几|多少|多久|多长|多大|何时|金额|上限",
    re.IGNORECASE,
)
_ASKS_TIME = re.compile(r"\bwhen\b|\bwhat (time|day|date|month|hours)\b|什么时候|几点|何时|哪天|时间", re.IGNORECASE)
_ASKS_WHO = re.compile(r"\bwho(m|se)?\b|谁|哪位|哪个部门", re.IGNORECASE)
_TIME = re.compile(
    r"\d{1,2}[:：]\d{2}|\b(mon|tues|wednes|thurs|fri|satur|sun)day|\b(january|february|march|april|may|june|july|august"
    r"|september|october|november|december)\b|\b(day|week|month|year|hour|noon|midnight)s?\b|[年月日号点周]|工作日|星期",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+|\b(manager|director|office|team|desk|head|lead|officer|committee)\b"
    r"|经理|主管|部|处|室|主任"
)

_TYPE_BONUS = 0.25
_TITLE_WEIGHT = 0.3
_RANK_WEIGHT = 0.15
_EMBEDDER_WEIGHT = 1.5


@dataclass(frozen=True, slots=True)
class Extract:
    """One sentence, the passage it stands in, and how well it answers (comparable within one question)."""

    document_id: str
    text: str
    score: float
    position: int


def best_sentences(
    query: str, documents: Sequence[Document], *, count: int = 1, embedder: Embedder | None = None
) -> list[Extract]:
    """The ``count`` best sentences, best first; fewer where the passages have fewer."""
    candidates = [
        (rank, document, sentence, _title(document))
        for rank, document in enumerate(documents)
        for sentence in passage_sentences(document)
    ]
    if not candidates:
        return []
    weights = _weights([sentence for _, _, sentence, _ in candidates])
    similarities = _similarities(query, [sentence for _, _, sentence, _ in candidates], embedder)
    asked = Counter(key_terms(query))
    extracts = []
    for position, (rank, document, sentence, title) in enumerate(candidates):
        score = (
            _overlap(asked, sentence, weights)
            + _TITLE_WEIGHT * _overlap(asked, title, weights)
            + _type_bonus(query, sentence)
            - _RANK_WEIGHT * rank
            + _EMBEDDER_WEIGHT * similarities[position]
        )
        extracts.append(Extract(document.get("id", ""), sentence, score, position))
    extracts.sort(key=lambda extract: (-extract.score, extract.position))
    seen: set[str] = set()
    unique = [e for e in extracts if not (e.text in seen or seen.add(e.text))]  # type: ignore[func-returns-value]
    return unique[:count]


def passage_sentences(document: Document) -> list[str]:
    """The sentences of a passage, each once, without the headings that it was given on top."""
    heading = _heading(document)
    return [sentence for sentence in dict.fromkeys(sentences(document["text"])) if sentence != heading]


def _heading(document: Document) -> str:
    return str((document.get("metadata") or {}).get("heading", ""))


def _title(document: Document) -> str:
    headings = [line.lstrip("# ") for line in document["text"].splitlines() if line.startswith("#")]
    return " ".join([*headings, _heading(document)])


def _weights(texts: Sequence[str]) -> dict[str, float]:
    """Rare terms say more than common ones: smoothed inverse sentence frequency."""
    counts = Counter(term for text in texts for term in set(key_terms(text)))
    return {term: math.log(1 + len(texts) / count) for term, count in counts.items()}


def _overlap(asked: Counter[str], text: str, weights: dict[str, float]) -> float:
    """The share of the question's weight that the text has, between 0 and 1."""
    unknown = max(weights.values(), default=1.0)
    total = sum(weights.get(term, unknown) for term in asked)
    if not total:
        return 0.0
    there = set(key_terms(text))
    return sum(weights.get(term, unknown) for term in asked if term in there) / total


def _type_bonus(query: str, sentence: str) -> float:
    bonus = 0.0
    fresh = numbers(sentence) - numbers(query)
    if _ASKS_NUMBER.search(query) and fresh:
        bonus += _TYPE_BONUS
    if _ASKS_TIME.search(query) and _TIME.search(sentence):
        bonus += _TYPE_BONUS
    if _ASKS_WHO.search(query) and _NAME.search(sentence):
        bonus += _TYPE_BONUS
    return bonus


def _similarities(query: str, texts: Sequence[str], embedder: Embedder | None) -> list[float]:
    if embedder is None:
        return [0.0] * len(texts)
    asked = embedder.encode([query], kind="query")[0]
    return [float(similarity) for similarity in embedder.encode(list(texts), kind="passage") @ asked]
