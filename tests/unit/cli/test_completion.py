"""``sage completion``: what the scripts propose is what the parser takes, and all of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sage.cli.dispatch import _app
from sage.cli.flags import FORMATS, parse_flags
from sage.cli.verbs import GROUPS, VERBS, names_at
from tests.unit.cli.conftest import Sage

COMMON = {"-o", "--output", "-q", "--quiet", "--debug", "--no-input", "-h", "--help"}

ASK = """
while read -r -a COMP_WORDS; do
  [[ "${COMP_WORDS[-1]}" == "EMPTY" ]] && COMP_WORDS[-1]=""
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _sage
  echo "${COMPREPLY[@]}"
done
"""


class Bash:
    """What bash proposes for lines that were typed so far."""

    def __init__(self, program: str, script: str, file: Path) -> None:
        self._words = [program, "--norc", str(file)]
        file.write_text(f"complete() {{ :; }}\n{script}\n{ASK}")

    def proposed(self, lines: list[str]) -> list[set[str]]:
        """For each line its proposals; a line that ends with a blank has an empty word at its end."""
        typed = "".join(f"{line}EMPTY\n" if line.endswith(" ") else f"{line}\n" for line in lines)
        done = subprocess.run(self._words, input=typed, capture_output=True, text=True, check=True, timeout=60)
        return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.fixture
def bash(sage: Sage, tmp_path: Path) -> Bash:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("no bash on this machine")
    return Bash(program, sage("completion", "bash").out, tmp_path / "ask.bash")


def test_every_option_that_is_proposed_is_taken_and_every_one_that_is_taken_is_proposed(bash: Bash) -> None:
    found = bash.proposed([f"sage {verb.words} -" for verb in VERBS.values()])
    for verb, proposed in zip(VERBS.values(), found, strict=True):
        own = {name for one in _app(verb).assemble_argument_collection() for name in one.names if name[0] == "-"}
        assert proposed == own | COMMON, verb.words


def test_the_options_of_every_command_are_those_that_are_taken_out_of_any_line() -> None:
    for option in COMMON:
        assert parse_flags([option, "json"]).rest in {(), ("json",)}, option


def test_groups_and_the_program_itself_propose_what_can_follow(bash: Bash, sage: Sage) -> None:
    root, version, group = bash.proposed(["sage ", "sage -", "sage topology -"])
    assert root == set(names_at(()))
    assert version == COMMON | {"--version"}
    assert sage("--version").code == 0
    assert group == COMMON
    for name, verbs in zip(GROUPS, bash.proposed([f"sage {name} " for name in GROUPS]), strict=True):
        assert verbs == set(names_at((name,)))


def test_values_are_proposed_where_there_is_a_choice(bash: Bash) -> None:
    asked = {
        "sage topology list -o ": set(FORMATS),
        "sage -o ": set(FORMATS),
        "sage topics --output ": set(FORMATS),
        "sage topology export x.yaml -f k": {"k8s", "keda"},
        "sage completion ": {"bash", "zsh", "fish"},
    }
    assert dict(zip(asked, bash.proposed(list(asked)), strict=True)) == asked


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_knows_every_verb_and_the_options_of_every_command(sage: Sage, shell: str) -> None:
    script = sage("completion", shell).out
    for verb in VERBS.values():
        assert verb.path[-1] in script
    for option in ("output", "quiet", "debug", "no-input"):
        long = f"-l {option} " if shell == "fish" else f"--{option}"
        assert script.count(long) >= len(VERBS), option
    for form in FORMATS:
        assert form in script
