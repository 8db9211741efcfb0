from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sage.graph import StreamBuilder
from sage.plan.encoding import fingerprint
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Operator


class Model(Operator[Any, Any]):
    class Config(BaseModel):
        model: str = "small"
        api_key: str | None = Field(default=None, json_schema_extra={"secret": True})

    def process(self, value: Any, ctx: Any) -> Any:
        return value


def clean(value: Any) -> Any:
    return value


def plan(config: dict[str, Any] | None = None, fn: Any = clean, **options: Any) -> Plan:
    env = StreamBuilder("t", environ={})
    env.from_topic("in").map(Model, config, name="model").map(fn, name="fn", **options).to("out")
    return compile_plan(env.build())


def test_the_same_pipeline_has_the_same_hash() -> None:
    assert plan({"model": "a"}).hash == plan({"model": "a"}).hash


def test_whatever_changes_the_run_changes_the_hash() -> None:
    plans = [
        plan(),
        plan({"model": "a"}),
        plan({"api_key": "${KEY}"}),
        plan({"api_key": "${OTHER}"}),
        plan(fn=lambda value: value),
        plan(fn=lambda value: value or 1),
        plan(concurrency=3),
    ]
    assert len({each.hash for each in plans}) == len(plans)


def test_the_hash_is_the_same_in_another_process(tmp_path: Path) -> None:
    program = tmp_path / "pipeline.py"
    program.write_text(
        "from sage.graph import StreamBuilder\nfrom sage.plan.planner import compile_plan\n"
        "def clean(value: str) -> str: return value\n"
        "env = StreamBuilder('t')\n"
        "branches = env.from_collection(['a']).map(clean).route({'a': lambda v: v, 'b': str.isupper})\n"
        "branches.a.collect(); branches.b.to('b')\n"
        "print(compile_plan(env.build()).hash)\n"
    )
    root = Path(__file__).parents[3]
    command = [
        sys.executable,
        "-c",
        f"import runpy, sys; sys.path.insert(0, {str(root)!r}); runpy.run_path({str(program)!r})",
    ]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def test_a_plan_is_plain_json_without_secrets() -> None:
    secret = plan({"api_key": "sk-secret"})
    text = json.dumps(secret.to_json())
    assert "sk-secret" not in text
    assert '"api_key": "***"' in text
    assert '"api_key": "${KEY}"' in json.dumps(plan({"api_key": "${KEY}"}).to_json())
    assert secret.to_json()["hash"] == secret.hash


def test_json_names_code_and_topics() -> None:
    content = plan().to_json()
    (stage,) = content["stages"]
    targets = {step["name"]: step["target"] for step in content["steps"]}
    assert [targets[name] for name in stage["steps"]] == [f"{__name__}:Model", f"{__name__}:clean"]
    assert stage["outputs"][0]["topic"] == "out"
    assert content["external"] == ["in"]


def test_fingerprints_are_of_the_source() -> None:
    assert fingerprint(clean) == fingerprint(functools.partial(clean)) != ""
    assert fingerprint("topic") == fingerprint(None) == fingerprint(len) == ""
    made: dict[str, Any] = {}
    exec("def one(v): return [x for x in v]\ndef two(v): return [x for x in v if x]", made)
    assert fingerprint(made["one"]) != fingerprint(made["two"]) != ""
