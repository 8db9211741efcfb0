"""User code that ends the program while it is loaded: nothing was loaded, so no verb may say that all went well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Sage

STEPS = {
    "map": "map: leaving_code:f",
    "key_by": "key_by: leaving_code:f",
    "route": "route: {good: leaving_code:f}",
}

HEAD = "import sys\nfrom sage import LocalEnvironment\n"
ADVICE = 'put that under if __name__ == "__main__":'


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the modules that a test's folder had."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("leaving_"):
            del sys.modules[name]


@pytest.fixture
def folder(sage: Sage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ``sage`` is called; there are brokers, which nothing may reach."""
    memory_broker.use(monkeypatch)
    return tmp_path


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("words", ["deploy", "validate", "plan --detailed-exitcode", "run", "export"])
def test_no_verb_takes_a_module_that_ends_the_program_for_done(sage: Sage, folder: Path, words: str, code: int) -> None:
    (folder / "leaving_code.py").write_text(f"import sys\nsys.exit({code})\n")
    (folder / "qa.yaml").write_text(
        "name: qa\nsteps:\n  in: {source: topic, config: {topic: a}}\n"
        "  work: {map: leaving_code:f, from: in}\n  out: {sink: topic, from: work, config: {topic: b}}\n"
    )
    verb, *flags = words.split()
    found = sage("topology", verb, "qa.yaml", *flags)
    assert (found.code, found.out) == (3, "")
    told = f"importing leaving_code ended the program (sys.exit({code})); {ADVICE} ({folder}/leaving_code.py:2)"
    assert f"qa.yaml:4:10 steps.work.map: {told} [SAGE101]" in found.err


@pytest.mark.parametrize("kind", STEPS)
def test_wherever_a_step_names_it_the_step_is_told(sage: Sage, folder: Path, kind: str) -> None:
    (folder / "leaving_code.py").write_text("import sys\nsys.exit()\n")
    (folder / "qa.yaml").write_text(
        f"name: qa\nsteps:\n  in: {{source: topic, config: {{topic: a}}}}\n  work: {{{STEPS[kind]}, from: in}}\n"
    )
    found = sage("topology", "validate", "qa.yaml")
    assert found.code == 3
    assert f"steps.work.{kind}" in found.err
    assert "importing leaving_code ended the program (sys.exit())" in found.err


@pytest.mark.parametrize(
    ("target", "text", "told"),
    [
        (
            "leaving_program.py:env", f"{HEAD}env = LocalEnvironment('qa')\nsys.exit(0)\n",
            f"importing leaving_program ended the program (sys.exit(0)); {ADVICE} (FOLDER/leaving_program.py:4)",
        ),
        (
            "leaving_program.py", f"{HEAD}env = LocalEnvironment('qa')\nsys.exit(0)\n",
            f"importing leaving_program ended the program (sys.exit(0)); {ADVICE} (leaving_program.py:4)",
        ),
        (
            "leaving_program.py:make", f"{HEAD}def make():\n    sys.exit('no key')\n",
            "leaving_program.py:make() ended the program (sys.exit('no key')), and gave no environment",
        ),
        ("leaving_program.py", "1 / 0\n", "importing leaving_program failed: ZeroDivisionError: division by zero"),
    ],
    ids=["env", "file", "function", "error"],
)  # fmt: skip
def test_a_program_that_ends_before_its_environment_is_had_is_told(
    sage: Sage, folder: Path, target: str, text: str, told: str
) -> None:
    (folder / "leaving_program.py").write_text(text)
    found = sage("topology", "deploy", target)
    assert (found.code, found.out) == (3, "")
    assert told.replace("FOLDER", str(folder)) in found.err


@pytest.mark.parametrize("target", ["leaving_program.py:env", "leaving_program.py"])
def test_a_program_that_ends_only_where_it_is_the_program_is_fine(sage: Sage, folder: Path, target: str) -> None:
    (folder / "leaving_program.py").write_text(
        f"{HEAD}env = LocalEnvironment('qa')\nenv.from_topic('a').to('b')\n"
        "if __name__ == '__main__':\n    sys.exit(env.submit())\n"
    )
    assert sage("topology", "validate", target).code == 0


def test_ctrl_c_while_code_is_loaded_is_an_interruption(sage: Sage, folder: Path) -> None:
    (folder / "leaving_program.py").write_text("raise KeyboardInterrupt\n")
    assert sage("topology", "validate", "leaving_program.py").code == 130
    assert sage("topology", "validate", "leaving_program.py:env").code == 130
