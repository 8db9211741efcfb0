"""Words, sentences, scores, extraction and grounding, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.llm.text import scores
from sage.llm.text.extract import best_sentences
from sage.llm.text.grounding import citations, is_grounded
from sage.llm.text.sentences import sentences
from sage.llm.text.words import is_chinese, key_terms, numbers, words
from sage.model.documents import Document


def document(text: str, name: str = "leave.md#0", heading: str = "") -> Document:
    return Document(id=name, text=text, score=0.9, metadata={"heading": heading} if heading else {})


LEAVE = document(
    "Leave > Annual leave\n\nNew staff get 20 days of paid leave a year. After five years of service it becomes 25 "
    "days. The leave year begins on 1 April.",
    heading="Leave > Annual leave",
)
CANTEEN = document(
    "食堂在三号楼一层。公司每天补贴每位员工18元餐费。对食物过敏的员工请告诉食堂经理周敏。", "zh-canteen.md#0"
)


class TestSentences:
    def test_full_stops_inside_numbers_and_abbreviations_end_nothing(self) -> None:
        text = "It costs 3.50 euros, e.g. in May. Ask Dr. Lind at 9 a.m. on Monday. Done."
        assert sentences(text) == ["It costs 3.50 euros, e.g. in May.", "Ask Dr. Lind at 9 a.m. on Monday.", "Done."]

    def test_wrapped_lines_belong_together_and_chinese_ones_join_without_a_space(self) -> None:
        assert sentences("One line\nand its rest.\n\n新员工每年有\n12天年假。") == [
            "One line and its rest.",
            "新员工每年有12天年假。",
        ]

    def test_marks_of_markdown_go_and_headings_with_them(self) -> None:
        assert sentences("# Title\n- **First** item\n- second\n\n## More\nText.") == ["First item", "second", "Text."]
        assert sentences("# Title\nText.", headings=True) == ["Title", "Text."]

    @settings(deadline=None)  # a busy machine is no failure
    @given(st.text())
    def test_never_loses_a_chinese_or_latin_letter_of_a_plain_paragraph(self, text: str) -> None:
        plain = "".join(c for c in text if c.isalpha() or c in " .。！") or "a"
        kept = "".join(sentences(plain))
        assert [c for c in kept if c.isalpha()] == [c for c in plain if c.isalpha()]


class TestWords:
    def test_every_chinese_character_is_a_word_and_numbers_stay_whole(self) -> None:
        assert words("It's 1,200 CNY at 18:30，年假12天") == [
            "it's",
            "1,200",
            "cny",
            "at",
            "18:30",
            "年",
            "假",
            "12",
            "天",
        ]

    def test_small_number_words_count_as_numbers(self) -> None:
        assert numbers("three days, 1,200 euros") == {"3", "1200"}

    def test_key_terms_leave_out_function_words_and_endings(self) -> None:
        assert key_terms("How many days do you get?") == key_terms("day")

    def test_tells_chinese_from_english(self) -> None:
        assert is_chinese("年假有几天？") and not is_chinese("How many days?") and not is_chinese("")


class TestScores:
    @pytest.mark.parametrize(
        ("answer", "expected", "f1"),
        [
            ("20 days", ["20 days"], 1.0),
            ("The 20 days.", ["20 days"], 1.0),
            ("20 days of leave", ["20 days"], 4 / 6),
            ("12天", ["12天年假"], 2 * 2 / (2 + 4)),
            ("nothing", ["20 days"], 0.0),
            ("", ["20 days"], 0.0),
            ("", [""], 1.0),
            ("20 days", [], 0.0),
            ("20 days", ["many", "20 days"], 1.0),
        ],
    )
    def test_f1_over_words(self, answer: str, expected: list[str], f1: float) -> None:
        assert scores.f1(answer, expected) == pytest.approx(f1)

    def test_exact_match_forgives_articles_case_and_punctuation_only(self) -> None:
        assert scores.exact_match("The Finance Director.", ["finance director"]) == 1
        assert scores.exact_match("director finance", ["finance director"]) == 0

    def test_rouge_l_keeps_the_order(self) -> None:
        assert scores.rouge_l("red green blue", ["red and green blue"]) == pytest.approx(6 / 7)
        assert scores.rouge_l("blue green red", ["red green blue"]) == pytest.approx(2 / 6)

    def test_bleu_is_one_for_the_same_text_and_falls_with_length(self) -> None:
        assert scores.bleu("员工每年有12天年假", ["员工每年有12天年假"]) == pytest.approx(1)
        assert 0 < scores.bleu("员工有12天年假", ["员工每年有12天年假"]) < 1
        assert scores.bleu("other", ["员工"]) == 0

    def test_holds_wants_the_words_in_a_row(self) -> None:
        assert scores.holds("You get 20 days a year", ["20 days"]) == 1
        assert scores.holds("20 of the days", ["20 days"]) == 0

    @settings(deadline=None)
    @given(st.text(), st.lists(st.text(), max_size=3))
    def test_every_score_is_between_0_and_1(self, answer: str, expected: list[str]) -> None:
        for score in (scores.f1, scores.exact_match, scores.rouge_l, scores.bleu, scores.holds):
            assert 0 <= score(answer, expected) <= 1 + 1e-9


class TestExtraction:
    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("How many days of leave do new staff get?", "New staff get 20 days of paid leave a year."),
            ("When does the leave year begin?", "The leave year begins on 1 April."),
            ("食堂在哪里？", "食堂在三号楼一层。"),
            ("食堂经理是谁？", "对食物过敏的员工请告诉食堂经理周敏。"),
        ],
    )
    def test_finds_the_sentence_that_answers(self, query: str, answer: str) -> None:
        assert best_sentences(query, [LEAVE, CANTEEN])[0].text == answer

    def test_a_heading_is_no_answer(self) -> None:
        texts = [extract.text for extract in best_sentences("annual leave", [LEAVE], count=9)]
        assert "Leave > Annual leave" not in texts and len(texts) == 3

    def test_nothing_comes_of_nothing(self) -> None:
        assert best_sentences("anything", []) == []
        assert best_sentences("anything", [document("")]) == []


class TestGrounding:
    @pytest.mark.parametrize(
        ("answer", "grounded"),
        [
            ("20 days of paid leave", True),
            ("20 days", True),
            ("30 days of paid leave", False),
            ("The chairman of the football club", False),
            ("How many days of leave do new staff get?", False),
            ("", False),
        ],
    )
    def test_an_answer_stands_when_a_passage_has_its_numbers_and_words(self, answer: str, grounded: bool) -> None:
        query = "How many days of leave do new staff get?"
        assert is_grounded(query, answer, [CANTEEN, LEAVE], threshold=0.6) is grounded

    def test_cites_the_sentence_and_its_document(self) -> None:
        found = citations("How many days of leave do new staff get?", "20 days of leave", [CANTEEN, LEAVE])
        assert found[0] == {"document_id": "leave.md#0", "quote": "New staff get 20 days of paid leave a year."}

    def test_cites_nothing_for_words_that_no_passage_has(self) -> None:
        assert citations("Who?", "The chairman of the club", [CANTEEN, LEAVE]) == []
