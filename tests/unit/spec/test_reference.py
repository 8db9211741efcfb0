import functools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.errors import InvalidTopology, UnknownName
from sage.spec.reference import is_reference, reference_of, resolve_reference

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into a folder of its own, and forgets modules that came from there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path.parent

    yield write  # type: ignore[misc]
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_importable_things_have_a_reference_that_leads_back() -> None:
    for target in (textwrap.dedent, Path, functools.partial):
        assert resolve_reference(reference_of(target)) is target


def test_what_others_cannot_import_has_none() -> None:
    def local() -> None: ...

    assert reference_of(lambda value: value) == ""
    assert reference_of(local) == ""
    assert reference_of(functools.partial(print)) == ""
    main_function = type("Main", (), {"__module__": "__main__"})
    assert reference_of(main_function) == ""


def test_code_beside_the_yaml_is_found(write: Write) -> None:
    folder = write("beside_ops.py", "import beside_other\ndef clean(value): return beside_other.SUFFIX + value\n")
    write("beside_other.py", "SUFFIX = '!'\n")
    assert resolve_reference("beside_ops:clean", folder=folder)("a") == "!a"
    assert resolve_reference("beside_ops.py:clean", folder=folder)("a") == "!a"
    assert resolve_reference(f"{folder}/beside_ops.py:clean")("a") == "!a"


def test_two_folders_may_have_modules_of_one_name(write: Write) -> None:
    one = write("one/same_ops.py", "WHICH = 1\n")
    two = write("two/same_ops.py", "WHICH = 2\n")
    assert resolve_reference("same_ops:WHICH", folder=one) == 1
    assert resolve_reference("same_ops:WHICH", folder=two) == 2


def test_a_module_that_hides_a_library_is_refused(write: Write) -> None:
    folder = write("json.py", "dumps = 1\n")
    with pytest.raises(InvalidTopology, match=r"module json is taken.*rename the file"):
        resolve_reference("json:dumps", folder=folder)


def test_nested_attributes_are_found() -> None:
    assert resolve_reference("pathlib:Path.exists") is Path.exists


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("near_ops:claen", UnknownName, "near_ops has no claen; did you mean clean?"),
        ("near_op:clean", UnknownName, "did you mean near_ops?"),
        ("near_op.py:clean", UnknownName, "did you mean near_ops.py?"),
        ("broken_ops:x", InvalidTopology, "broken_ops.py:1: "),
        ("raising_ops:x", InvalidTopology, "ZeroDivisionError: division by zero"),
        ("needing_ops:x", InvalidTopology, "importing needing_ops failed: no module named not_there_at_all"),
        ("no reference", InvalidTopology, "is not a reference"),
        ("a-b:c", InvalidTopology, "is not a module's name"),
    ],
)
def test_what_cannot_be_found_is_told(write: Write, text: str, error: type[Exception], told: str) -> None:
    folder = write("near_ops.py", "def clean(value): return value\n")
    write("broken_ops.py", "def clean(:\n")
    write("raising_ops.py", "1 / 0\n")
    write("needing_ops.py", "import not_there_at_all\n")
    with pytest.raises(error) as raised:
        resolve_reference(text, folder=folder)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "import json\nfrom pathlib import Path\nWIDTH = 3\n"
            "class Runs:\n    def submit(self): ...\nenv = Runs()\ndef qa(): ...\n",
            "own_ops.py has no nope; it has: Runs, env, qa [SAGE102]",
        ),
        ("import json\n", "own_ops.py has no nope; it has no function, class or environment of its own [SAGE102]"),
    ],
)
def test_only_what_the_file_itself_defines_is_listed(write: Write, text: str, told: str) -> None:
    folder = write("own_ops.py", text)
    with pytest.raises(UnknownName) as raised:
        resolve_reference("own_ops.py:nope", folder=folder)
    assert str(raised.value) == told


def test_a_module_that_failed_can_be_mended(write: Write) -> None:
    folder = write("mended_ops.py", "1 / 0\n")
    with pytest.raises(InvalidTopology):
        resolve_reference("mended_ops:VALUE", folder=folder)
    write("mended_ops.py", "VALUE = 'now it works'\n")
    assert resolve_reference("mended_ops:VALUE", folder=folder) == "now it works"


@pytest.mark.parametrize(
    ("text", "told", "line"),
    [
        ("import sys\nsys.exit(0)\n", "sys.exit(0)", 2),
        ("import sys\n\nsys.exit()\n", "sys.exit()", 3),
        ("raise SystemExit('SHOP_KEY is not set')\n", "sys.exit('SHOP_KEY is not set')", 1),
        ("import argparse\nargparse.ArgumentParser().error('odd')\n", "sys.exit(2)", 2),
        ("import leaving_too\n", "sys.exit(4)", 1),
    ],
)
def test_a_module_that_ends_the_program_is_told_with_its_line(write: Write, text: str, told: str, line: int) -> None:
    folder = write("leaving_ops.py", text)
    write("leaving_too.py", "raise SystemExit(4)\n")
    file = folder / ("leaving_too.py" if "leaving_too" in text else "leaving_ops.py")
    with pytest.raises(InvalidTopology) as raised:
        resolve_reference("leaving_ops:work", folder=folder)
    assert raised.value.message == (
        f'importing leaving_ops ended the program ({told}); put that under if __name__ == "__main__": ({file}:{line})'
    )
    write("leaving_ops.py", "work = 'it was mended'\n")
    assert resolve_reference("leaving_ops:work", folder=folder) == "it was mended"


def test_whatever_else_a_module_raises_is_told_and_an_interruption_goes_on(write: Write) -> None:
    folder = write("odd_ops.py", "raise GeneratorExit('odd')\n")
    write("interrupted_ops.py", "raise KeyboardInterrupt\n")
    with pytest.raises(InvalidTopology, match="importing odd_ops failed: GeneratorExit: odd"):
        resolve_reference("odd_ops:x", folder=folder)
    with pytest.raises(KeyboardInterrupt):
        resolve_reference("interrupted_ops:x", folder=folder)


def test_references_are_told_from_fields_and_expressions() -> None:
    assert is_reference("a.b:c.d")
    assert is_reference("./ops.py:clean")
    assert not is_reference("field")
    assert not is_reference("value.x > 3 ? a : b")
