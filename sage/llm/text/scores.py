"""How near an answer is to the expected ones: F1 and exact match over words, ROUGE-L and BLEU.

Words are compared after lower-casing, without punctuation and English articles; every Chinese character counts as
a word. Against several expected answers the best one counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from sage.llm.text.words import scored_words

_BLEU_ORDER = 4


def f1(answer: str, expected: Sequence[str]) -> float:
    """The harmonic mean of the precision and the recall of words; 0 without an expected answer."""
    return _best(answer, expected, _f1)


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """1 where the words are the same and in the same order, else 0."""
    return _best(answer, expected, lambda given, wanted: float(given == wanted))


def rouge_l(answer: str, expected: Sequence[str]) -> float:
    """The F-measure over the longest common subsequence of words."""
    return _best(answer, expected, _rouge_l)


def bleu(answer: str, expected: Sequence[str]) -> float:
    """BLEU over up to four words in a row, for one answer: counts beyond single words are smoothed by one."""
    return _best(answer, expected, _bleu)


def holds(answer: str, expected: Sequence[str]) -> float:
    """1 where the words of an expected answer stand in the answer one after the other, else 0."""
    return _best(answer, expected, _holds)


def _best(answer: str, expected: Sequence[str], score: Callable[[list[str], list[str]], float]) -> float:
    given = scored_words(answer)
    return max((score(given, scored_words(text)) for text in expected), default=0.0)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _rouge_l(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    return 2 * _common_subsequence(given, wanted) / (len(given) + len(wanted))


def _holds(given: list[str], wanted: list[str]) -> float:
    size = len(wanted)
    return float(any(given[start : start + size] == wanted for start in range(len(given) - size + 1)))


def _bleu(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    total = 0.0
    for size in range(1, _BLEU_ORDER + 1):
        ours, theirs = _grams(given, size), _grams(wanted, size)
        smoothing = 0 if size == 1 else 1
        matched = sum((ours & theirs).values()) + smoothing
        if not matched:
            return 0.0
        total += math.log(matched / (sum(ours.values()) + smoothing))
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(brevity + total / _BLEU_ORDER)


def _grams(text: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1))


def _common_subsequence(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for column, other in enumerate(right, start=1):
            above = row[column]
            row[column] = before + 1 if word == other else max(above, row[column - 1])
            before = above
    return row[-1]
