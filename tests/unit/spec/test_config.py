from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr

from sage.errors import InvalidTopology, MissingVariable, NotFound, SageError
from sage.model.duration import Duration
from sage.spec.component import Operator
from sage.spec.config import make_component, normalise_config, reveal, secrets_of


class Inner(BaseModel):
    model: str = "small"
    token: str | None = Field(default=None, json_schema_extra={"secret": True})


class Retriever(Operator[str, str]):
    class Config(BaseModel):
        collection: str
        top_k: int = 5
        mode: Literal["dense", "sparse"] = "dense"
        max_wait: Duration = 0.0
        base_url: str = Field(default="", validation_alias=AliasChoices("base_url", "address"))
        api_key: SecretStr | None = Field(default=None, json_schema_extra={"instead": "use model: local/smollm2"})
        inner: Inner | None = None
        several: list[Inner] = []
        named: dict[str, Inner] = {}
        free: dict[str, Any] = {}


def config(given: Any, **environ: str) -> dict[str, Any]:
    found, problems = normalise_config(Retriever, given, environ=environ)
    assert problems == []
    return found


def problems(given: Any, component: Any = Retriever, **environ: str) -> dict[str, str]:
    found, told = normalise_config(component, given, environ=environ)
    assert found == {}
    return {".".join(map(str, problem.path)): problem.message for problem in told}


def test_options_become_plain_json_under_their_own_names() -> None:
    given = {"collection": "docs", "topk": "3", "max_wait": "500ms", "address": "http://x"}
    assert config(given) == {"collection": "docs", "top_k": 3, "max_wait": 0.5, "base_url": "http://x"}


def test_unset_options_are_left_out() -> None:
    assert config({"collection": "docs"}) == {"collection": "docs"}


def test_an_instance_of_the_config_is_taken_as_it_is() -> None:
    made = Retriever.Config(collection="docs", api_key=SecretStr("${KEY}"), inner=Inner(token="t"))
    assert config(made) == {"collection": "docs", "api_key": "${KEY}", "inner": {"token": "t"}}
    assert "is a Inner, not a" in problems(Inner())[""]


def test_every_problem_is_told_at_once() -> None:
    given = {
        "topq": 1,
        "mode": "dens",
        "top_k": "many",
        "inner": {"modle": "x"},
        "several": [{}, {"tokn": 1}],
        "named": {"a": {"model": 3}},
    }
    assert problems(given) == {
        "topq": "unknown option; did you mean top_k?",
        "inner.modle": "unknown option; did you mean model?",
        "several.1.tokn": "unknown option; did you mean token?",
        "collection": "is required and missing",
        "mode": "input should be 'dense' or 'sparse'; found 'dens'",
        "top_k": "input should be a valid integer, unable to parse string as an integer; found 'many'",
        "named.a.model": "input should be a valid string; found 3",
    }


def test_one_option_under_two_names_is_told() -> None:
    assert problems({"collection": "docs", "top_k": 1, "topk": 2}) == {
        "topk": "is given twice, as topk and under another name; keep one"
    }


def test_variables_are_resolved_except_in_secrets() -> None:
    given = {
        "collection": "${WHERE}",
        "top_k": "${N:-7}",
        "api_key": "${KEY}",
        "inner": {"model": "${M:-m}", "token": "${T}"},
        "several": [{"token": "${T}"}],
        "named": {"a": {"token": "${T}", "model": "x"}},
        "free": {"a": ["$${kept}", "${WHERE}"]},
    }
    assert config(given, WHERE="docs") == {
        "collection": "docs",
        "top_k": 7,
        "api_key": "${KEY}",
        "inner": {"model": "m", "token": "${T}"},
        "several": [{"token": "${T}"}],
        "named": {"a": {"token": "${T}", "model": "x"}},
        "free": {"a": ["${kept}", "docs"]},
    }


def test_a_missing_variable_is_one_problem_where_it_stands() -> None:
    found, told = normalise_config(Retriever, {"collection": "docs", "top_k": "${N}"}, environ={})
    (problem,) = told
    assert (found, problem.path, problem.missing) == ({}, ("top_k",), "N")
    assert problem.message == "N is not set. Set it, or write ${N:-default}."
    assert isinstance(problem.error("here"), MissingVariable)


def test_a_config_that_allows_more_keeps_it() -> None:
    class Open(Operator[str, str]):
        class Config(BaseModel):
            model_config = ConfigDict(extra="allow")

    found, told = normalise_config(Open, {"anything": "${X}"}, environ={"X": "1"})
    assert (found, told) == ({"anything": "1"}, [])


def test_values_without_a_json_form_are_told() -> None:
    class Odd(Operator[str, str]):
        class Config(BaseModel):
            value: Any = None
            path: Path | None = None

    assert "can't be written as JSON" in problems({"value": object()}, Odd)[""]
    assert normalise_config(Odd, {"path": Path("a.txt")}, environ={}) == ({"path": "a.txt"}, [])


def test_a_config_must_be_a_mapping_and_the_class_a_model() -> None:
    class Plain(Operator[str, str]):
        class Config:  # type: ignore[assignment]
            suffix = "!"

    assert problems(["a"])[""].startswith("must be a mapping")
    assert problems({}, Plain)[""] == "Plain.Config must be a pydantic BaseModel"


def test_components_are_made_with_their_secrets() -> None:
    stored = config({"collection": "docs", "api_key": "${KEY}", "several": [{"token": "${KEY}"}]})
    made = make_component(Retriever, stored, environ={"KEY": "sk-1"})
    assert made.config.api_key.get_secret_value() == "sk-1"
    assert made.config.several[0].token == "sk-1"
    assert made.config.top_k == 5
    assert stored["api_key"] == "${KEY}"


def test_a_missing_secret_says_where_and_what_to_do() -> None:
    stored = config({"collection": "docs", "api_key": "${KEY}"})
    with pytest.raises(MissingVariable) as raised:
        make_component(
            Retriever, stored, environ={}, where="step", places={"config.api_key": "rag.yaml:11:86 config.api_key"}
        )
    assert str(raised.value) == (
        "rag.yaml:11:86 config.api_key: KEY is not set. Set it, or use model: local/smollm2. [SAGE301]"
    )
    with pytest.raises(MissingVariable, match=r"KEY is not set \(on worker w2\)\. Set it there, or use"):
        make_component(Retriever, stored, environ={}, worker="w2")


def test_a_config_that_no_longer_fits_is_an_invalid_topology() -> None:
    with pytest.raises(InvalidTopology, match=r"here: config\.top_k: input should be a valid integer"):
        make_component(Retriever, {"collection": "docs", "top_k": "x"}, environ={}, where="here")


def test_a_component_that_can_t_be_made_is_named_at_its_place_with_its_error() -> None:
    class Broken(Operator[str, str]):
        def __init__(self, config: Any) -> None:
            raise KeyError("TOKEN")

    class Bare(Operator[str, str]):
        def __init__(self) -> None: ...

    class Refusing(Operator[str, str]):
        def __init__(self, config: Any) -> None:
            raise NotFound("there is no model", where="there")

    with pytest.raises(SageError, match=r"^here: making Broken failed: KeyError: 'TOKEN'"):
        make_component(Broken, {}, environ={}, where="here")
    with pytest.raises(SageError, match=r"^here: making Bare failed: TypeError: .*; write __init__\(self, config\)"):
        make_component(Bare, {}, environ={}, where="here")
    with pytest.raises(NotFound, match="there: there is no model"):
        make_component(Refusing, {}, environ={}, where="here")


def test_secrets_never_show_in_messages() -> None:
    told = problems({"collection": "docs", "api_key": ["sk-secret"]})
    assert "sk-secret" not in str(told)


def test_secrets_are_found_at_any_depth() -> None:
    stored = {"collection": "c", "api_key": "a", "inner": {"token": "b"}, "several": [{"token": "c"}]}
    paths = [path for path, _, _ in secrets_of(Retriever.Config, stored)]
    assert paths == [("api_key",), ("inner", "token"), ("several", 0, "token")]


def test_settings_are_revealed_without_a_component() -> None:
    assert reveal(Inner, {"token": "${T}"}, environ={"T": "x"}) == {"token": "x"}
    with pytest.raises(MissingVariable):
        reveal(Inner, {"token": "${T}"}, environ={})
