"""What is installed, and its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from sage.errors import UnknownName
from sage.operations.components import described, listed, options_of


class Mode(StrEnum):
    """Ways to work."""

    FAST = "fast"
    EXACT = "exact"


class Inner(BaseModel):
    """An option with options."""

    size: int = 1


class Options(BaseModel):
    """Every kind of option."""

    path: str = Field(description="Where.")
    count: int | None = Field(default=None, description="How many.")
    mode: Mode = Mode.FAST
    form: Literal["lines", "csv"] = "lines"
    names: list[str] = Field(default_factory=list)
    inner: Inner = Inner()


def test_options_are_described_by_their_models() -> None:
    found = {one["option"]: one for one in options_of(Options)}
    assert found["path"] == {"option": "path", "type": "string", "default": "required", "description": "Where."}
    assert found["count"]["type"] == "integer"
    assert found["mode"]["type"] == "fast|exact"
    assert found["form"]["type"] == "lines|csv"
    assert found["names"]["type"] == "list of string"
    assert found["inner"]["type"] == "object"


def test_installed_components_are_listed_with_a_summary() -> None:
    operators = {one["name"]: one for one in listed(("operator",))}
    assert operators["dense_retriever"]["summary"]
    connectors = {(one["name"], one["kind"]) for one in listed(("source", "sink"))}
    assert {("file", "source"), ("file", "sink"), ("terminal", "sink"), ("topic", "source")} <= connectors


def test_a_component_is_described_in_every_kind_it_has() -> None:
    kinds = [one["kind"] for one in described("file", ("source", "sink"))]
    assert kinds == ["source", "sink"]
    (found,) = described("dense_retriever", ("operator",))
    assert "collection" in {one["option"] for one in found["options"]}
    assert found["schema"]["type"] == "object"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown operator 'dense_retriver'; did you mean dense_retriever\?"):
        described("dense_retriver", ("operator",))


def test_a_component_of_ones_own_is_described_by_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shout.py").write_text(
        "from pydantic import BaseModel\n"
        "from sage.spec.component import Operator\n"
        "class Shout(Operator[str, str]):\n"
        '    """Say it loudly."""\n'
        "    class Config(BaseModel):\n"
        '        suffix: str = "!"\n'
        "def plain(value): return value\n"
    )
    monkeypatch.chdir(tmp_path)
    (found,) = described("shout.py:Shout", ("operator",))
    assert (found["kind"], found["description"]) == ("operator", "Say it loudly.")
    assert found["options"][0]["default"] == "!"
    with pytest.raises(UnknownName, match="is not a component class"):
        described("shout.py:plain", ("operator",))
