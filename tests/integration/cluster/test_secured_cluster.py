"""Workers and deployers with accounts of their own on Apache Kafka with TLS, SCRAM and ACLs that allow nothing else.

The rights come from the table that ``sage doctor`` and the documentation show: what is not in it, nobody has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import pytest

from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.names import PREFIX_VARIABLE, ControlTopics
from sage.errors import Unauthorized
from sage.kafka.clients import ConfluentClients
from sage.kafka.launchers.apache import missing_tools
from sage.model.partition import TopicPartition
from sage.operations.rights import Right, Role, rights_of
from sage.ports import KafkaClients, Operation, TopicSpec
from tests.support.programs import Program, sage
from tests.support.records import everything
from tests.support.secured_kafka import PASSWORD, SecuredKafka
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
RECORDS = 200
TENANTS = ("acme", "blue")
ACCOUNTS = tuple(f"{tenant}{role}" for tenant in TENANTS for role in ("worker", "deployer", "reader"))
POOR = ("nogroup", "notopic", "nowrite", "noid")


def control_of(tenant: str) -> ControlTopics:
    return ControlTopics(f"__sage-{tenant}")


def needed(tenant: str, role: Role) -> tuple[Right, ...]:
    return rights_of(role, f"{tenant}-", control_of(tenant))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    if reason := missing_tools():
        pytest.skip(f"NOT TESTED ON APACHE KAFKA: {reason}")
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), (*ACCOUNTS, *POOR))
    kafka.start()
    try:
        kafka.make_users(*ACCOUNTS, *POOR)
        for tenant in TENANTS:
            for role in ("worker", "deployer", "reader"):
                kafka.grant(f"{tenant}{role}", needed(tenant, role))
        worker = needed("acme", "worker")
        kafka.grant("nogroup", [right for right in worker if right.kind != "group"])
        kafka.grant("noid", [right for right in worker if right.kind != "transactional-id"])
        for user, operations in (("notopic", ("Read",)), ("nowrite", ("Read", "Create"))):
            kafka.grant(user, [right for right in worker if right.name != "acme-" or right.kind != "topic"])
            kafka.grant(user, [Right("topic", "acme-", True, cast("tuple[Operation, ...]", operations), "a test")])
        yield kafka
    finally:
        kafka.stop()


Clients = Callable[..., KafkaClients]


@pytest.fixture
def clients(secured: SecuredKafka) -> Clients:
    def of(user: str) -> KafkaClients:
        login = secured.login("SASL_SSL", "SCRAM-SHA-512", user)
        return ConfluentClients(login.pop("bootstrap.servers"), login)

    return of


class Desk:
    """A folder with a topology of a tenant, and the command line as an account of it."""

    def __init__(self, secured: SecuredKafka, folder: Path, name: str, guarantee: str = "exactly_once") -> None:
        self.secured = secured
        self.folder = folder
        self.name = name
        self.tenant = name.partition("-")[0]
        self.file = folder / f"{name}.yaml"
        self.file.write_text(
            f"""version: 1
name: {name}
guarantee: {guarantee}
defaults: {{partitions: 2}}
steps:
  asked: {{source: topic, config: {{topic: {name}-in}}}}
  by: {{key_by: n, from: asked}}
  work: {{map: "tests.integration.cluster.secured_steps:work", from: by}}
  out: {{sink: topic, from: work, config: {{topic: {name}-out}}}}
""",
            encoding="utf-8",
        )

    def account(self, user: str, password: str = PASSWORD) -> tuple[str, str]:
        login = self.secured.login("SASL_SSL", "SCRAM-SHA-512", user, password)
        return "--kafka-config", str(self.secured.properties(login, self.folder / f"{user}.properties"))

    @property
    def environ(self) -> dict[str, str]:
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        return {PREFIX_VARIABLE: control_of(self.tenant).prefix, "PYTHONPATH": path, "COLUMNS": "400"}

    def run(self, user: str, *words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sage", *words, *self.account(user, password)],
            cwd=self.folder, env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def worker(self, user: str) -> AbstractContextManager[Program]:
        return sage(
            self.folder,
            "worker",
            "run",
            "--allow-code",
            "tests.integration.cluster",
            *self.account(user),
            environ=self.environ,
        )

    def feed(self, clients: KafkaClients) -> None:
        clients.admin().create([TopicSpec(f"{self.name}-in", 2), TopicSpec(f"{self.name}-out", 2)])
        producer = clients.producer()
        for number in range(RECORDS):
            producer.produce(f"{self.name}-in", json.dumps({"n": number}).encode())
        assert producer.flush(30) == 0
        assert not producer.take_failures()
        producer.close()


def lines(done: subprocess.CompletedProcess[str], code: int = 4) -> str:
    """The one line of an error, which must hold no password."""
    assert done.returncode == code, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    found = [line for line in done.stderr.splitlines() if "stopped too" not in line and "Ctrl-C" not in line]
    assert len([line for line in found if "[SAGE" in line]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    return found[-1]


def numbers(clients: KafkaClients, topic: str) -> list[int]:
    return sorted(json.loads(message.value() or b"{}")["n"] for message in everything(clients, topic))


def test_records_flow_once_with_the_rights_of_the_table_and_no_others(
    secured: SecuredKafka, clients: Clients, tmp_path: Path
) -> None:
    desk = Desk(secured, tmp_path, "acme-flow")
    desk.feed(clients("acmeworker"))
    done = desk.run("acmedeployer", "topology", "deploy", desk.file.name)
    assert done.returncode == 0, done.stderr
    with desk.worker("acmeworker") as first, desk.worker("acmeworker") as second:
        out = f"{desk.name}-out"
        wait_until(
            lambda: len(everything(clients("acmereader"), out)) >= RECORDS, timeout=90,
            what=f"all records come out\n{first.output}\n{second.output}",
        )  # fmt: skip
        shown = desk.run("acmereader", "topology", "status", desk.name)
        assert shown.returncode == 0, shown.stderr
        scaled = desk.run("acmedeployer", "topology", "pause", desk.name, "--wait")
        assert scaled.returncode == 0, scaled.stderr
        for worker in (first, second):
            worker.process.terminate()
            assert worker.wait(45) == 0, worker.output
            assert PASSWORD not in worker.output
            assert "refused" not in worker.output, worker.output
    assert numbers(clients("acmereader"), out) == list(range(RECORDS))
    gone = desk.run("acmedeployer", "topology", "delete", desk.name, "--purge", "--yes")
    assert gone.returncode == 0, gone.stderr


def test_a_worker_can_not_deploy(secured: SecuredKafka, clients: Clients, tmp_path: Path) -> None:
    desk = Desk(secured, tmp_path, "acme-stolen")
    desk.feed(clients("acmeworker"))
    assert desk.run("acmedeployer", "topology", "deploy", desk.file.name).returncode == 0
    desk.file.write_text(desk.file.read_text().replace("partitions: 2", "partitions: 2, concurrency: 3"))
    told = lines(desk.run("acmeworker", "topology", "deploy", desk.file.name))
    assert "sage-acme-deploy-acme-stolen" in told
    assert "kafka-acls" in told
    producer = clients("acmeworker").producer()
    producer.produce(control_of("acme").topologies, b"{}", b"acme-stolen")
    producer.flush(20)
    (failure,) = producer.take_failures()
    assert "AUTHORIZATION" in failure.reason
    producer.close()


def test_a_tenant_sees_and_touches_nothing_of_another(secured: SecuredKafka, clients: Clients, tmp_path: Path) -> None:
    acme, blue = Desk(secured, tmp_path, "acme-own"), Desk(secured, tmp_path, "blue-own")
    for desk in (acme, blue):
        desk.feed(clients(f"{desk.tenant}worker"))
        done = desk.run(f"{desk.tenant}deployer", "topology", "deploy", desk.file.name)
        assert done.returncode == 0, done.stderr
    for role in ("worker", "deployer", "reader"):
        seen = clients(f"blue{role}").admin()
        assert not [info.name for info in seen.list_topics() if "acme" in info.name]
        assert not [group for group in seen.list_groups() if group.startswith("acme")]
        with pytest.raises(Unauthorized):
            seen.end_offsets([TopicPartition("acme-own-in", 0)])
        with pytest.raises(Unauthorized):
            seen.create([TopicSpec("acme-mine")])
    stolen = acme.run("bluedeployer", "topology", "delete", acme.name, "--purge", "--yes")
    assert control_of("acme").prefix in lines(stolen)
    assert numbers(clients("acmereader"), "acme-own-in") == list(range(RECORDS))


WRONG: Sequence[tuple[str, str, list[str]]] = [
    ("acmeworker", "wrong-horse", ["password"]),
    ("notopic", PASSWORD, ["Create on topic acme-poor", "kafka-acls"]),
    ("nowrite", PASSWORD, ["Write on topic acme-poor", "kafka-acls"]),
    ("nogroup", PASSWORD, ["group acme-poor", "Read", "kafka-acls"]),
    ("noid", PASSWORD, ["transactional id acme-poor", "Write", "kafka-acls"]),
]


@pytest.mark.parametrize(("user", "password", "words"), WRONG, ids=[user for user, *_ in WRONG])
def test_what_an_account_lacks_is_named_with_what_to_do(
    secured: SecuredKafka, clients: Clients, tmp_path: Path, user: str, password: str, words: list[str]
) -> None:
    desk = Desk(secured, tmp_path, f"acme-poor-{user}")
    desk.feed(clients("acmeworker"))
    told = lines(desk.run(user, "topology", "run", desk.file.name, "--until-idle", password=password))
    assert not [word for word in words if word not in told], told
    assert "wrong-horse" not in told


def test_a_worker_with_a_wrong_password_ends_at_once(secured: SecuredKafka, tmp_path: Path) -> None:
    desk = Desk(secured, tmp_path, "acme-wrong")
    assert "password" in lines(desk.run("acmeworker", "worker", "run", password="wrong-horse"))


def test_doctor_says_what_is_missing_and_the_command_that_gives_it(
    secured: SecuredKafka, clients: Clients, tmp_path: Path
) -> None:
    desk = Desk(secured, tmp_path, "acme-doctor")
    ensure_control_topics(clients("acmedeployer"), control_of("acme"))  # rights on what is not there can't be told
    for role in ("worker", "deployer", "reader"):
        done = desk.run(f"acme{role}", "doctor", "--prefix", "acme-", "--role", role)
        assert done.returncode == 0, done.stdout + done.stderr
    poor = desk.run("nogroup", "doctor", "--prefix", "acme-", "--role", "worker", "-o", "json")
    assert poor.returncode == 1, poor.stdout + poor.stderr
    (failed,) = [one for one in json.loads(poor.stdout) if one["state"] == "fail"]
    assert failed["found"].startswith("no Read on group acme-*")
    assert failed["advice"].endswith("--operation Read --group acme- --resource-pattern-type prefixed")
    spying = desk.run("acmedeployer", "doctor", "--prefix", "acme-", "--role", "worker")
    assert "who has it can deploy" in spying.stdout
