"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
READMES = ("README.md", "README.zh-CN.md")
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "connectors", ROOT / "topologies")))}


def blocks(readme: str, language: str, before: str = "") -> list[str]:
    found: list[str] = re.findall(rf"{before}```{language}\n(.*?)```", (ROOT / readme).read_text("utf-8"), re.DOTALL)
    return found


def sage(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sage", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRON, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("readme", READMES)
def test_programs_marked_as_such_print_what_their_comment_says(readme: str, tmp_path: Path) -> None:
    programs = blocks(readme, "python", "<!-- runs -->\n")
    assert programs
    for program in programs:
        (tmp_path / "program.py").write_text(program)
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", program)


@pytest.mark.parametrize("readme", READMES)
def test_the_program_of_the_starter_project_is_the_one_shown(readme: str, tmp_path: Path) -> None:
    made = sage("init", "handbook", "--template", "rag-qa", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert blocks(readme, "python")[0].strip() == (tmp_path / "handbook" / "qa.py").read_text().strip()


@pytest.mark.parametrize("readme", READMES)
def test_topologies_are_valid(readme: str, tmp_path: Path) -> None:
    for topology in blocks(readme, "yaml"):
        (tmp_path / "t.yaml").write_text(topology)
        checked = sage("topology", "validate", "t.yaml", cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("readme", READMES)
def test_commands_exist(readme: str, tmp_path: Path) -> None:
    text = (ROOT / readme).read_text("utf-8")
    verbs = {match.strip() for match in re.findall(r"(?:^|`|&& )sage ((?:[a-z]+ ?){1,2})", text, re.MULTILINE)}
    assert len(verbs) >= 6
    known = {"init handbook": "init", "memory ingest": "memory ingest"}
    for verb in sorted(verbs):
        helped = sage(*known.get(verb, verb).split(), "--help", cwd=tmp_path)
        assert helped.returncode == 0, f"{verb}: {helped.stderr}"


def test_files_that_are_linked_exist() -> None:
    for name in (*READMES, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "infra/README.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text("utf-8")):
            if "://" not in link:
                assert ((ROOT / name).parent / link).exists(), f"{name}: {link}"


def test_both_languages_show_the_same_programs() -> None:
    for language in ("python", "yaml"):
        assert blocks(READMES[0], language) == blocks(READMES[1], language)
