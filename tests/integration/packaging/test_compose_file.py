import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage.version import __version__

ROOT = Path(__file__).parents[3]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return loaded


SERVICES = sorted(compose()["services"])


SERVERS = {"jaeger", "kafka", "milvus"}


def test_has_the_servers_of_a_cluster_and_on_request_its_workers() -> None:
    services = compose()["services"]
    assert {name for name in SERVICES if "profiles" not in services[name]} == SERVERS
    assert {name for name in SERVICES if services[name].get("profiles") == ["workers"]} == set(SERVICES) - SERVERS
    assert set(SERVICES) - SERVERS == {"worker", "otel", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_checked_and_only_on_this_machine(name: str) -> None:
    service = compose()["services"][name]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
    assert name == "otel" or service["healthcheck"]["test"]  # its image has no program that could ask it
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_workers_have_the_version_of_this_tree_and_files_that_are_here() -> None:
    loaded = compose()
    assert loaded["services"]["worker"]["image"] == f"sage-streams:{__version__}"
    folders = [each.split(":")[0] for service in loaded["services"].values() for each in service.get("volumes", ())]
    for path in [*(c["file"] for c in loaded["configs"].values()), *(f for f in folders if f.startswith("."))]:
        assert (ROOT / path).exists()


def test_workers_are_given_what_topologies_may_read_there_and_no_address_of_memory() -> None:
    worker = compose()["services"]["worker"]
    allowed = {each.partition("=")[2] for each in worker["command"] if each.startswith("--allow-env=")}
    assert allowed == {name for name in worker["environment"] if name.startswith("OPENAI_")}
    assert not [name for name in worker["environment"] if "MILVUS" in name]


def test_data_is_kept_in_declared_volumes() -> None:
    used = {each.split(":")[0] for service in compose()["services"].values() for each in service.get("volumes", ())}
    assert {each for each in used if not each.startswith(".")} == set(compose()["volumes"])


def test_kafka_runs_without_zookeeper_and_without_topics_by_accident() -> None:
    environment = compose()["services"]["kafka"]["environment"]
    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert len(environment["CLUSTER_ID"]) == 22
    listeners = {each.split("://")[0] for each in environment["KAFKA_LISTENERS"].split(",")}
    mapped = {each.split(":")[0] for each in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}
    assert listeners == mapped


def test_its_kafka_is_the_version_that_the_tests_use() -> None:
    pom = (ROOT / "infra" / "kafka" / "pom.xml").read_text()
    version = re.search(r"<kafka.version>([\d.]+)</kafka.version>", pom)
    assert version is not None
    assert compose()["services"]["kafka"]["image"] == f"apache/kafka:{version[1]}"
