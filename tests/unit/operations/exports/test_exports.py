"""A topology in the words of other tools: what is in each, and that nothing secret is."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from sage.graph.yaml import parse_topology, read_topology
from sage.operations.exports import asyncapi, compose, kubernetes, scaled_object
from sage.operations.exports.text import yaml_text
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan

TEXT = """
version: 1
name: shop_qa
defaults: {partitions: 4}
topics: {replication_factor: 3}
steps:
  ask:      {source: topic, config: {topic: questions}}
  prompt:   {operator: qa_promptor, from: ask}
  generate: {operator: openai_generator, from: prompt, concurrency: 8, config: {model: m, api_key: "${SHOP_KEY}"}}
  answers:  {sink: topic, from: generate, config: {topic: answers}}
"""
ENVIRON = {"SHOP_KEY": "very-secret"}


@pytest.fixture
def plan() -> Plan:
    return compile_plan(parse_topology(TEXT, environ=ENVIRON))


def parsed(documents: Any) -> list[Any]:
    """What another program reads from the text."""
    return list(YAML(typ="safe").load_all(yaml_text(documents)))


def test_asyncapi_names_each_topic_once_and_who_reads_it(plan: Plan) -> None:
    (document,) = parsed([asyncapi(plan, servers="a:1, b:2")])
    assert document["asyncapi"] == "3.1.0"
    assert [server["host"] for server in document["servers"].values()] == ["a:1", "b:2"]
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert sorted(addresses) == ["answers", "questions", "shop_qa.dlq", "shop_qa.prompt"]
    edge = next(each for each in document["channels"].values() if each["address"] == "shop_qa.prompt")
    assert (edge["bindings"]["kafka"]["partitions"], edge["bindings"]["kafka"]["replicas"]) == (4, 3)
    receives = [each for each in document["operations"].values() if each["action"] == "receive"]
    assert {each["bindings"]["kafka"]["groupId"]["enum"][0] for each in receives} == {s.group for s in plan.stages}
    for operation in document["operations"].values():
        _, _, channel = operation["channel"]["$ref"].rpartition("/")
        assert channel in document["channels"]


def test_compose_hands_over_the_topology_and_asks_for_what_it_needs(plan: Plan) -> None:
    (document,) = parsed([compose(plan, image="shop:1", replicas=3)])
    worker = document["services"]["worker"]
    assert (worker["image"], worker["deploy"]["replicas"]) == ("shop:1", 3)
    assert worker["environment"]["SHOP_KEY"] == "${SHOP_KEY:?}"
    assert worker["command"][:3] == ["topology", "run", worker["configs"][0]["target"]]
    content = document["configs"]["topology"]["content"].replace("$$", "$")  # as Compose writes it into the container
    assert compile_plan(parse_topology(content, environ=ENVIRON)).hash == plan.hash


def test_kubernetes_runs_the_same_plan_with_its_secrets_from_a_secret(plan: Plan, tmp_path: Any) -> None:
    config, service, workers, disruption = parsed(kubernetes(plan, replicas=2, brokers="kafka:9093"))
    (name,) = {each["metadata"]["name"] for each in (config, service, workers, disruption)}
    assert name == "sage-shop-qa"
    (path,) = config["data"]
    (tmp_path / path).write_text(config["data"][path])
    assert compile_plan(read_topology(tmp_path / path, environ=ENVIRON)).hash == plan.hash
    (container,) = workers["spec"]["template"]["spec"]["containers"]
    assert container["args"][2] == f"/etc/sage/{path}"
    environment = {each["name"]: each for each in container["env"]}
    assert environment["SHOP_KEY"]["valueFrom"] == {"secretKeyRef": {"name": name, "key": "SHOP_KEY"}}
    assert environment["SAGE_BOOTSTRAP_SERVERS"]["value"] == "kafka:9093"
    assert workers["spec"]["replicas"] == 2
    labels = workers["spec"]["template"]["metadata"]["labels"]
    for selected in (service["spec"]["selector"], disruption["spec"]["selector"]["matchLabels"]):
        assert selected.items() <= labels.items()


def test_a_variable_that_need_not_be_set_is_asked_of_nobody() -> None:
    text = TEXT.replace("${SHOP_KEY}", "${SHOP_KEY:-}")
    plan = compile_plan(parse_topology(text, environ={}))
    assert compose(plan)["services"]["worker"]["environment"]["SHOP_KEY"] == "${SHOP_KEY:-}"
    (workers,) = [each for each in kubernetes(plan) if each["kind"] == "StatefulSet"]
    (container,) = workers["spec"]["template"]["spec"]["containers"]
    (given,) = [each for each in container["env"] if each["name"] == "SHOP_KEY"]
    assert given["valueFrom"]["secretKeyRef"]["optional"] is True


def test_keda_watches_what_each_stage_reads_and_stops_at_the_partitions(plan: Plan) -> None:
    (document,) = parsed([scaled_object(plan, brokers="kafka:9093", lag=7)])
    found = {(t["metadata"]["consumerGroup"], t["metadata"]["topic"]) for t in document["spec"]["triggers"]}
    assert found == {(stage.group, i.topic) for stage in plan.stages for i in stage.inputs}
    assert {t["metadata"]["lagThreshold"] for t in document["spec"]["triggers"]} == {"7"}
    assert document["spec"]["maxReplicaCount"] == 4
    (workers,) = [each for each in kubernetes(plan) if each["kind"] == "StatefulSet"]
    assert document["spec"]["scaleTargetRef"]["name"] == workers["metadata"]["name"]


def test_no_export_has_the_secret(plan: Plan) -> None:
    exports = [asyncapi(plan), compose(plan), *kubernetes(plan), scaled_object(plan)]
    assert "very-secret" not in yaml_text(exports)
