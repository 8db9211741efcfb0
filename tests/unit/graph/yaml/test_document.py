import pytest

from sage.errors import InvalidTopology
from sage.graph.yaml.document import read_document


def read(text: str):
    document, problems = read_document(text, "t.yaml")
    assert problems == []
    return document


def told(text: str) -> list[str]:
    try:
        return [str(problem) for problem in read_document(text, "t.yaml")[1]]
    except InvalidTopology as error:
        return [str(error)]


def test_values_are_those_of_yaml_1_2() -> None:
    text = "a: yes\nb: on\nc: true\nd: 0o17\ne: 1e3\nf: ~\ng: 2026-11-01\n1: x\nh: '5'\ni: !!str 5\n"
    data = {"a": "yes", "b": "on", "c": True, "d": 15, "e": 1000.0, "f": None, "g": "2026-11-01", "1": "x", "h": "5"}
    assert read(text).data == {**data, "i": "5"}


def test_every_key_and_item_has_its_place() -> None:
    document = read("a: {b: 1}\nlist:\n  - x\n  - {c: 2}\n")
    assert {path: tuple(place) for path, place in document.places.items()} == {
        (): (1, 1),
        ("a",): (1, 1),
        ("a", "b"): (1, 5),
        ("list",): (2, 1),
        ("list", 0): (3, 5),
        ("list", 1): (4, 5),
        ("list", 1, "c"): (4, 6),
    }
    assert str(document.origin(("a", "missing"))) == "t.yaml:1:1 a.missing"


def test_aliases_and_merges_are_written_out() -> None:
    document = read("base: &base {x: 1, y: 2}\nsame: *base\nmore:\n  <<: *base\n  y: 3\n")
    assert document.data == {"base": {"x": 1, "y": 2}, "same": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}
    assert read("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}\n").data["c"] == {"x": 1, "z": 3}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", ["t.yaml:3:1 a: is given twice, in line 1 too; keep one [SAGE101]"]),
        (
            "a: !mine 1\nb: !x {c: 1}\n",
            [
                "t.yaml:1:4 a: tag !mine is not allowed; write plain values [SAGE101]",
                "t.yaml:2:4 b: tag !x is not allowed; write plain values [SAGE101]",
            ],
        ),
        (
            "a: !!python/object:os.system [x]\n",
            [
                "t.yaml:1:4 a: tag tag:yaml.org,2002:python/object:os.system is not "
                "allowed; write plain values [SAGE101]"
            ],
        ),
        (
            "a: !!binary aGk=\n",
            ["t.yaml:1:4 a: tag tag:yaml.org,2002:binary is not allowed"],
        ),
        ("[a, b]: 1\n", ["t.yaml:1:1: a key must be a text [SAGE101]"]),
        ("a: &a [*a]\n", ["t.yaml:1:4 a.0: is an alias of what it stands in; write the value [SAGE101]"]),
        ("a: {<<: 3}\n", ["t.yaml:1:9 a: << takes the alias of a mapping, or a list of them [SAGE101]"]),
        (
            "a: !!int x\n",
            ["t.yaml:1:4 a: 'x' is not what its tag says: invalid literal"],
        ),
        ("a: b: c\n", ["t.yaml:1:5: not valid YAML: mapping values are not allowed here [SAGE101]"]),
        (
            "a: [1\nb: 2\n",
            ["t.yaml:2:2: not valid YAML: while parsing a flow sequence, expected"],
        ),
        ("a: *x\n", ["t.yaml:1:4: not valid YAML: found undefined alias 'x' [SAGE101]"]),
        (
            "a: 1\n--- \nb: 2\n",
            ["t.yaml:2:1: not valid YAML: expected a single document"],
        ),
        ("[" * 5000, ["t.yaml: not a topology: it is nested too deeply [SAGE101]"]),
    ],
)
def test_what_is_no_plain_yaml_is_told_with_its_place(text: str, problems: list[str]) -> None:
    found = told(text)
    assert len(found) == len(problems)
    assert all(one.startswith(start) for one, start in zip(found, problems, strict=True)), found


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert told("\n".join(lines)) == ["t.yaml: has more than 100000 values; aliases too? [SAGE101]"]


def test_an_empty_text_is_nothing() -> None:
    assert read("# only a comment\n").data is None
