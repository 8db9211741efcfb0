import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.spec.variables import UnsetVariable, escaped, is_reference, resolve


def test_variables_are_replaced_anywhere_in_a_text() -> None:
    assert resolve("http://${HOST}:${PORT:-80}/", {"HOST": "db"}) == "http://db:80/"


def test_a_default_stands_in_for_unset_and_empty() -> None:
    assert resolve("${A:-x}", {"A": ""}) == "x"
    assert resolve("${A:-}", {}) == ""
    assert resolve("${A}", {"A": ""}) == ""


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(UnsetVariable) as raised:
        resolve("a ${MISSING} b", {})
    assert raised.value.name == "MISSING"


@pytest.mark.parametrize("text", ["${1X}", "${A", "${A-b}", "${}"])
def test_what_only_looks_like_a_variable_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a variable"):
        resolve(text, {"A": "1"})


@given(st.text(alphabet="${}aA:-", max_size=12))
def test_escaped_text_comes_back(text: str) -> None:
    # `$` before an escape is the one text that can't be told apart from a longer escape; it is kept too.
    assert resolve(escaped(text), {}) == text


def test_only_a_lone_variable_is_a_reference() -> None:
    assert is_reference("${KEY}")
    assert is_reference("${KEY:-}")
    assert not is_reference("${KEY:-sk-1}")
    assert not is_reference("sk-${KEY}")
    assert not is_reference("$${KEY}")
