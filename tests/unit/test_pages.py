"""What the pages for people tell them to type fits the files beside them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage.graph.yaml.reader import read_topology
from sage.testing import TopologyDriver
from sage.version import __version__

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
INFRA = "infra/README.md"
CHART = ROOT / "infra/helm/sage"
WITHOUT_MODELS = {"chat_promptor", "extractive_reader", "qa_promptor", "text_splitter"}


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> list[str]:
    """What is to be typed or copied, without the comments, which are in the page's language."""
    found = re.findall(r"^```\w*\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    return [re.sub(r"[ \t]*#.*$", "", block, flags=re.MULTILINE) for block in found]


def commands(page: str, beginning: str) -> list[list[str]]:
    """The words of each command that begins so."""
    return [shlex.split(line) for block in blocks(page) for line in block.splitlines() if line.startswith(beginning)]


def yaml_of(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.mark.parametrize("page", [*READMES, INFRA])
def test_each_helm_install_gives_what_the_chart_requires_and_knows(page: str) -> None:
    required = set(re.findall(r'required "[^"]+" \.Values\.([\w.]+)', text("infra/helm/sage/templates/workers.yaml")))
    assert required
    values = yaml_of(CHART / "values.yaml")
    installs = commands(page, "helm install")
    assert installs
    for words in installs:
        assert (ROOT / words[3] / "Chart.yaml").exists()
        given = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--set")
        assert required | {"image.repository"} <= given.keys(), words
        for name in given:
            section, option = name.split(".")
            assert option in values[section], name


@pytest.mark.parametrize("page", [INFRA, "docker-compose.yml", "infra/helm/sage/templates/NOTES.txt"])
def test_what_is_deployed_in_containers_needs_neither_model_nor_memory_nor_file(page: str) -> None:
    deployed = re.findall(r"sage topology deploy (\S+\.yaml)", text(page))
    assert deployed
    for name in deployed:
        topology = yaml_of(ROOT / name)
        assert "memory" not in topology
        for step in topology["steps"].values():
            ends = {step.get("source", "topic"), step.get("sink", "topic")}
            assert ends == {"topic"}
            assert step.get("operator", "extractive_reader") in WITHOUT_MODELS


def test_the_question_of_the_walk_through_is_answered_as_the_page_says() -> None:
    (produce,) = commands(INFRA, "sage topics produce")
    (answer,) = re.findall(r'# "answer": "([^"]+)"', text(INFRA))
    with TopologyDriver(ROOT / "infra/reader.yaml") as driver:
        driver.send(json.loads(produce[4]))
        assert [each["answer"] for each in driver.outputs("answer")] == [answer]
        assert driver.dead_letters() == []


def test_the_topology_with_models_for_containers_can_run_and_names_services_only(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", text(INFRA), re.DOTALL)
    (tmp_path / "rag.yaml").write_text(shown, "utf-8")
    topology = read_topology(tmp_path / "rag.yaml", environ={"OPENAI_API_KEY": "a-key"})
    assert [step.name for step in topology.steps] == ["questions", "retrieve", "prompt", "generate", "answers"]
    assert "local/" not in shown
    assert "localhost" not in shown


def test_the_image_that_is_pushed_is_the_one_that_is_built() -> None:
    assert set(re.findall(r"sage-streams:([\w.]+)", text(INFRA))) == {__version__}
    assert yaml_of(CHART / "Chart.yaml")["appVersion"] == __version__


@pytest.mark.parametrize("page", READMES)
def test_a_memory_of_the_cluster_is_filled_before_it_is_asked(page: str) -> None:
    (typed,) = [block for block in blocks(page) if "docker compose up" in block]
    assert typed.index("MILVUS_URI=") < typed.index("sage memory ingest handbook") < typed.index("sage topology deploy")


@pytest.mark.parametrize("page", ["README", *sorted(f"docs/{path.name[:-9]}" for path in ROOT.glob("docs/*.zh-CN.md"))])
def test_both_languages_have_the_same_to_type(page: str) -> None:
    assert blocks(f"{page}.zh-CN.md") == blocks(f"{page}.md")


def test_somebody_is_woken_when_there_is_no_worker_that_could_tell() -> None:
    rules = [rule for group in yaml_of(ROOT / "infra/prometheus/alerts.yml")["groups"] for rule in group["rules"]]
    paged = [rule["expr"] for rule in rules if rule["labels"]["severity"] == "page"]
    assert "absent(sage_worker_ready)" in paged
