from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sage.llm.embedders import MockTextEmbedder


def test_vectors_are_unit_float32_of_the_asked_length() -> None:
    vectors = MockTextEmbedder(fixed_dim=24).encode(["hello world", "", "你好", "!?", "a\0b\ud800"])
    assert vectors.shape == (5, 24)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_no_texts_give_no_rows() -> None:
    assert MockTextEmbedder().encode([]).shape == (0, 16)


def test_the_same_text_has_the_same_vector_in_another_process() -> None:
    program = "from sage.llm.embedders import MockTextEmbedder as M; print(M().encode(['hello world']).tobytes().hex())"
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == MockTextEmbedder().encode(["hello world"]).tobytes().hex()


def test_texts_that_share_words_are_nearer() -> None:
    embedder = MockTextEmbedder(64)
    query, near, far, chinese, chinese_far = embedder.encode(
        ["annual leave days", "The annual leave is 20 days", "parking for bicycles", "年假有多少天", "停车场"]
    )
    assert query @ near > query @ far + 0.2
    asked = embedder.encode(["年假多少天"], kind="query")[0]
    assert asked @ chinese > asked @ chinese_far + 0.2


def test_case_and_punctuation_make_no_difference() -> None:
    first, second = MockTextEmbedder().encode(["Hello, World!", "hello world"])
    assert first == pytest.approx(second)


def test_a_dimension_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        MockTextEmbedder(fixed_dim=1)
