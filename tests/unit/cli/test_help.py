"""Help: complete, quick, and the same words as the table of verbs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from sage.cli.verbs import GROUPS, VERBS, Verb
from tests.unit.cli.conftest import Sage

HEAVY = ("confluent_kafka", "pymilvus", "openai", "numpy", "pydantic", "rich", "cyclopts", "ruamel", "opentelemetry")


def test_help_names_every_verb(sage: Sage) -> None:
    page = sage("--help").out
    for verb in VERBS.values():
        assert verb.path[0] in page
        assert verb.path[-1] in page


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_every_way_to_ask_gives_the_same_page(sage: Sage, words: tuple[str, ...]) -> None:
    outcome = sage(*words)
    assert outcome.code == 0
    assert outcome.out.startswith("Usage: sage COMMAND")
    assert outcome.err == ""


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from sage.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['topology', '--help']) == 0\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_the_help_of_a_command_imports_the_argument_parser_alone() -> None:
    program = (
        "import sys\n"
        "from sage.cli.main import main\n"
        "from sage.cli.verbs import VERBS\n"
        "for path in VERBS:\n"
        "    assert main([*path, '--help']) == 0\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "['cyclopts']"


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_a_group_alone_lists_its_verbs(sage: Sage, group: str) -> None:
    outcome = sage(group)
    assert outcome.code == 0
    for verb in VERBS.values():
        if verb.path[0] == group:
            assert f"\n  {verb.path[1]}" in outcome.out


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.words)
def test_each_verb_explains_itself(sage: Sage, verb: Verb) -> None:
    outcome = sage(*verb.path, "--help")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"Usage: sage {verb.words}")
    assert "--output FORMAT" in outcome.out
    assert sage("help", *verb.path).out == outcome.out


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.words)
def test_each_verb_has_its_function(verb: Verb) -> None:
    module, _, name = verb.target.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert function.__doc__
    assert verb.summary
    assert not verb.summary.endswith(".")


def test_positional_arguments_and_options_are_told_apart(sage: Sage) -> None:
    page = sage("topics", "produce", "--help").out
    assert page.startswith("Usage: sage topics produce TOPIC [VALUES...] [OPTIONS]")
    arguments, _, options = page.partition("\nOptions:")
    assert "TOPIC " in arguments
    assert "-k, --key TEXT" in options
