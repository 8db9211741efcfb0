"""Which sentences of the passages answer a question.

A sentence is as good as the rare words that it shares with the question, plus a bonus where it has what the question
asks for (a number for "how many", a time for "when"). Sentence embeddings were tried beside these and changed no
choice for the better.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sage.llm.text.sentences import sentences
from sage.llm.text.words import key_terms, numbers
from sage.model.documents import Document

_COUNT = r"(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|half a)"
_CLOCK = r"\d{1,2}[:：]\d{2}|\bnoon\b|\bmidnight\b|[\d一二三四五六七八九十]+点"
_DURATION = (
    rf"\b{_COUNT} (?:\w+ )?(?:minute|hour|day|week|month|year)s?\b"
    r"|[\d一二三四五六七八九十两半]+个?(?:分钟|小时|天|日|周|星期|月|年)"
)
_DATE = (
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b(?:january|february|march|april|june|july|august|september"
    r"|october|november|december)\b|\bin may\b|\b\d+(?:st|nd|rd|th)\b"
    r"|[\d一二三四五六七八九十]+[月日号]|星期|周[一二三四五六日末]"
)
_NAME = (
    r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+|\b(?:manager|director|office|team|desk|head|lead|officer|committee)\b"
    r"|经理|主管|部|处|室|主任"
)


def _kind(asks: str, shows: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(asks, re.IGNORECASE), re.compile(shows, re.IGNORECASE)


_KINDS = (
    _kind(r"\bhow (?:long|often)\b|多久|多长时间", f"{_DURATION}|{_CLOCK}"),
    _kind(
        r"\bwhen\b|\b(?:what|which) (?:time|day|date|month|hours)\b|什么时候|几点|何时|哪天",
        f"{_CLOCK}|{_DATE}|{_DURATION}",
    ),
)
"""What a question asks for, and what a sentence must have to give it."""

_ASKS_NUMBER = re.compile(
    r"\bhow (?!long|often|do|does|did|is|are|was|can|could|may|must|should|shall|will|would|to\b)\w+"
    r"|\bwhat (?:percentage|amount|number|limit|price|weight)\b|多少|多大|多高|几[个天次名种条元分]|金额|上限",
    re.IGNORECASE,
)
_ASKS_WHO = re.compile(r"\bwho(?:m|se)?\b|谁|哪位|哪个部门", re.IGNORECASE)
_SHOWS_WHO = re.compile(_NAME)

_TYPE_BONUS = 0.5
_TITLE_WEIGHT = 0.3
_RANK_WEIGHT = 0.15


@dataclass(frozen=True, slots=True)
class Extract:
    """One sentence, the passage it stands in, and how well it answers (comparable within one question)."""

    document_id: str
    text: str
    score: float
    position: int


def best_sentences(query: str, documents: Sequence[Document], *, count: int = 1) -> list[Extract]:
    """The ``count`` best sentences, best first; fewer where the passages have fewer."""
    candidates = [
        (rank, document, sentence, _title(document))
        for rank, document in enumerate(documents)
        for sentence in passage_sentences(document)
    ]
    if not candidates:
        return []
    weights = _weights([sentence for _, _, sentence, _ in candidates])
    asked = Counter(key_terms(query))
    extracts = []
    for position, (rank, document, sentence, title) in enumerate(candidates):
        score = (
            _overlap(asked, sentence, weights)
            + _TITLE_WEIGHT * _overlap(asked, title, weights)
            + _type_bonus(query, sentence)
            - _RANK_WEIGHT * rank
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
    """What a sentence gains by having the kind of thing that the question asks for."""
    shown = sum(1 for asks, shows in _KINDS if asks.search(query) and shows.search(sentence))
    if _ASKS_NUMBER.search(query) and numbers(sentence) - numbers(query):
        shown += 1
    if _ASKS_WHO.search(query) and _SHOWS_WHO.search(sentence):
        shown += 1
    return _TYPE_BONUS * shown
