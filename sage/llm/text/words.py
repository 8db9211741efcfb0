"""Words of mixed English and Chinese text.

Chinese has no spaces: there every character counts as a word, and for matching every pair of neighbours too,
since single characters are too common to say what a sentence is about.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|\d+(?:[.,:]\d+)*|[^\W\d_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)*")
_CJK_CHARACTER = re.compile(f"[{_CJK}]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ARTICLES = frozenset({"a", "an", "the"})

_STOPWORDS = frozenset(
    """a an the and or but if then of to in on at by for from with without into over under as is are was were be been
    being am do does did done doing have has had having will would can could shall should may might must it its this
    that these those there here i you he she we they me him her us them my your his our their who whom whose which
    what when where why how many much long often far not no yes so than too very just also only any some all each
    every both please tell get gets got take takes taken need needs happen happens""".split()  # noqa: SIM905 - readable
)
_CJK_STOPWORDS = frozenset(
    "的了是在我你他她它们们吗呢吧啊和与或也都就不有这那哪个什么怎么多少几谁请问可以要能会该为对把被从到"
)

_NUMBER_WORDS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40",
    "fifty": "50", "sixty": "60", "ninety": "90", "hundred": "100",
    "一": "1", "二": "2", "两": "2", "三": "3", "四": "4", "五": "5", "六": "6", "七": "7", "八": "8", "九": "9",
    "十": "10",
}  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a text, lower-cased and in order; one per Chinese character; numbers keep their separators."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def scored_words(text: str) -> list[str]:
    """The words that answers are compared by: without English articles, and without punctuation."""
    return [word for word in words(text) if word not in _ARTICLES]


def key_terms(text: str) -> list[str]:
    """What a text is about: its words without function words, English ones stemmed, Chinese ones as pairs."""
    terms: list[str] = []
    for run, is_chinese in _runs(words(text)):
        if is_chinese:
            terms.extend(_chinese_terms(run))
        else:
            terms.extend(_NUMBER_WORDS.get(word, stem(word)) for word in run if word not in _STOPWORDS)
    return terms


def numbers(text: str) -> set[str]:
    """The numbers of a text as digits, small number words included."""
    found = {number.replace(",", "") for number in _NUMBER.findall(unicodedata.normalize("NFKC", text))}
    return found | {_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS}


def digits(text: str) -> set[str]:
    """The numbers written in digits only."""
    return {number.replace(",", "") for number in _NUMBER.findall(unicodedata.normalize("NFKC", text))}


def is_chinese(text: str) -> bool:
    """Whether Chinese characters make up at least a third of a text's words."""
    found = words(text)
    return bool(found) and 3 * sum(1 for word in found if _CJK_CHARACTER.fullmatch(word)) >= len(found)


def stem(word: str) -> str:
    """An English word without the endings of plurals and tenses; crude, and the same on both sides."""
    word = word.removesuffix("'s").removesuffix("’s")
    for ending, rest in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: len(word) - len(ending)] + rest
            break
    return word.removesuffix("e") if len(word) > 3 else word


def _chinese_terms(run: list[str]) -> Iterator[str]:
    for first, second in itertools.pairwise(run):
        if first not in _CJK_STOPWORDS and second not in _CJK_STOPWORDS:
            yield first + second
    for character in run:
        if character not in _CJK_STOPWORDS:
            yield character


def _runs(found: list[str]) -> Iterator[tuple[list[str], bool]]:
    run: list[str] = []
    kind = False
    for word in found:
        chinese = _CJK_CHARACTER.fullmatch(word) is not None
        if run and chinese is not kind:
            yield run, kind
            run = []
        run.append(word)
        kind = chinese
    if run:
        yield run, kind
