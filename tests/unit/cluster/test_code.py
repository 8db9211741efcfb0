"""Whether two machines run the same code is seen from what they imported, not from what lies on disk now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sage.cluster.code import code_of, differences, step_digest
from sage.plan.decoding import plan_from_json
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from tests.unit.cluster.pipelines import asking, environment

SOURCE = "def helper(value):\n    return value\n\ndef clean(value):\n    return helper(value)\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "pipeline_under_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pipeline_under_test", raising=False)
    yield lambda: __import__("pipeline_under_test")
    sys.modules.pop("pipeline_under_test", None)


def plan_of(module: Any) -> Plan:
    env = environment()
    env.from_topic("qa-in").map(module.clean, name="clean").to("qa-out")
    return compile_plan(env.build())


def reimported(tmp_path: Path, module: Any, source: str) -> Any:
    path = tmp_path / "pipeline_under_test.py"
    path.write_text(source)
    sys.modules.pop("pipeline_under_test")
    for cached in tmp_path.rglob("*.pyc"):
        cached.unlink()
    return module()


def test_code_is_the_function_with_its_module_and_the_distribution() -> None:
    code = code_of(asking())
    assert {"tests.unit.cluster.pipelines:Ask", "tests.unit.cluster.pipelines:shout"} <= set(code)
    assert step_digest(code, "ask") != step_digest(code, "say") != ""
    assert differences(code, code_of(asking())) == []


def test_a_change_of_a_function_that_a_step_calls_is_another_code(tmp_path: Path, module: Any) -> None:
    before = plan_of(module())
    deployed = code_of(before)
    after = plan_of(reimported(tmp_path, module, SOURCE.replace("return value", "return value or 1")))
    assert after.hash == before.hash, "the step's own source is the same"
    assert differences(deployed, code_of(after)) != []
    assert step_digest(deployed, "clean") != step_digest(code_of(after), "clean")


def test_a_file_that_changes_under_a_running_process_does_not_change_what_it_runs(tmp_path: Path, module: Any) -> None:
    plan = plan_of(module())
    deployed = code_of(plan)
    (tmp_path / "pipeline_under_test.py").write_text(SOURCE + "# new\n")
    assert code_of(plan) == deployed
    assert "new" in Path(module().__file__).read_text()


def test_code_that_was_not_imported_here_counts_not() -> None:
    plan = asking()
    assert code_of(plan_from_json(plan.to_json())) == {}
    assert differences(code_of(plan), {}) == []
