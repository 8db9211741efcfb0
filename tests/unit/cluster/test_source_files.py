"""What a step's module hangs on is found by reading: the same on every machine that has the same files."""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from sage.cluster.code import changed_files, code_of, differences
from sage.cluster.source_files import source_files
from sage.plan.planner import compile_plan
from tests.unit.cluster import pipelines
from tests.unit.cluster.pipelines import environment
from tests.unit.cluster.worker import town

FILES = {
    "shop_under_test/__init__.py": "",
    "shop_under_test/steps.py": "import json\nfrom .rules import price\nfrom . import taxes\nimport shop_beside_it\n"
    "def work(value):\n    return price(value)\n",
    "shop_under_test/rules/__init__.py": "from shop_under_test.rules.prices import price\n",
    "shop_under_test/rules/prices.py": "def price(value):\n    from ..taxes import VAT\n    return value * VAT\n",
    "shop_under_test/taxes.py": "VAT = 2\n",
    "shop_under_test/unused.py": "",
    "shop_beside_it.py": "",
    "lone_step_under_test.py": "import shop_beside_it\nimport shop_under_test.taxes as taxes\n"
    "def work(value):\n    return value\n",
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith(("shop_", "lone_step"))]:
        del sys.modules[name]


def test_of_a_package_it_is_what_the_module_imports_of_that_package(load: Callable[[str], ModuleType]) -> None:
    found = source_files(load("shop_under_test.steps"))
    assert next(iter(found)) == "shop_under_test.steps"
    assert set(found) == {
        "shop_under_test", "shop_under_test.steps", "shop_under_test.rules", "shop_under_test.rules.prices",
        "shop_under_test.taxes",
    }  # fmt: skip


def test_a_module_outside_of_packages_belongs_with_what_is_beside_it(load: Callable[[str], ModuleType]) -> None:
    found = source_files(load("lone_step_under_test"))
    assert set(found) == {"lone_step_under_test", "shop_beside_it", "shop_under_test", "shop_under_test.taxes"}


def test_of_what_is_installed_it_is_the_file_alone() -> None:
    import json

    assert list(source_files(pytest)) == ["pytest"]
    assert list(source_files(importlib.import_module("sage.operators"))) == ["sage.operators"]
    assert list(source_files(json)) == ["json"]
    assert source_files(sys) == {}


def test_another_rule_behind_the_same_step_is_another_code(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    env = environment()
    env.from_topic("qa-in").map(load("shop_under_test.steps").work, name="work").to("qa-out")
    plan = compile_plan(env.build())
    deployed = code_of(plan)
    file = tmp_path / "shop_under_test/taxes.py"
    file.write_text("VAT = 3\n")
    assert code_of(plan) == deployed, "it is what was loaded that counts"
    assert changed_files(plan) == [file]
    sys.modules.pop("shop_under_test.steps")
    env = environment()
    env.from_topic("qa-in").map(load("shop_under_test.steps").work, name="work").to("qa-out")
    assert differences(deployed, code_of(compile_plan(env.build()))) != []


def test_several_that_deploy_at_the_same_time_find_the_same() -> None:
    modules = [town, pipelines]
    alone = [source_files(module) for module in modules]

    def others_go_on(phase: str, info: dict[str, int]) -> None:
        """A collection may run finalizers, which let other threads go on in mid-parse."""
        del phase, info
        time.sleep(0)

    thresholds = gc.get_threshold()
    gc.callbacks.append(others_go_on)
    gc.set_threshold(50, 10_000, 10_000)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(source_files, modules * 2))
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(others_go_on)
    assert found == alone * 2
