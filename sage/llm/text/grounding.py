"""Whether an answer stands in the passages, and on which words of them."""

from __future__ import annotations

from collections.abc import Sequence

from sage.llm.text.extract import best_sentences, passage_sentences
from sage.llm.text.words import digits, key_terms, numbers
from sage.model.documents import Citation, Document

QUOTE_COVERAGE = 0.5
"""The share of an answer's terms that a sentence must have to be quoted for it."""


_LEAD_IN = frozenset(key_terms("answer question text correct 答案 回答"))
"""Words that introduce an answer, as in "The answer is: 6", and say nothing themselves."""


def coverage(answer: str, text: str) -> float:
    """The share of the answer's key terms that the text has; 0 for an answer without any."""
    terms = set(key_terms(answer)) - _LEAD_IN
    if not terms:
        return 0.0
    return len(terms & set(key_terms(text))) / len(terms)


def is_grounded(query: str, answer: str, documents: Sequence[Document], *, threshold: float) -> bool:
    """Whether the passages bear the answer out.

    Every number in it must stand in the question or in one passage, that passage must have ``threshold`` of its key
    terms, and it must say something that the question does not say already.
    """
    if not set(key_terms(answer)) - set(key_terms(query)) - _LEAD_IN:
        return False
    return any(
        digits(answer) <= numbers(document["text"]) | numbers(query) and coverage(answer, document["text"]) >= threshold
        for document in documents
    )


def citations(query: str, answer: str, documents: Sequence[Document], *, limit: int = 2) -> list[Citation]:
    """The sentences that the answer stands on, best first; none where no sentence has its words and numbers.

    Among sentences that bear the answer out alike, the one that answers the question best comes first.
    """
    order = {
        (extract.document_id, extract.text): place
        for place, extract in enumerate(best_sentences(query, documents, count=1_000_000))
    }
    found: list[tuple[float, int, Citation]] = []
    for document in documents:
        for sentence in passage_sentences(document):
            share = coverage(answer, sentence)
            if share >= QUOTE_COVERAGE and digits(answer) <= numbers(sentence) | numbers(query):
                citation = Citation(document_id=document.get("id", ""), quote=sentence)
                found.append((-share, order.get((citation["document_id"], sentence), len(order)), citation))
    found.sort(key=lambda entry: entry[:2])
    return [citation for _, _, citation in found[:limit]]
