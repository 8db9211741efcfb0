"""What a role needs, what an account lacks of it, and what the brokers can't tell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from sage.cluster.names import ControlTopics
from sage.operations.doctor import Finding, World, rights
from sage.operations.rights import ROLES, Right, Role, missing_rights, rights_of
from sage.ports import OPERATIONS, Operation, Resource, TopicSpec
from sage.testing.broker import InMemoryClients
from sage.testing.in_memory_admin import InMemoryAdmin

CONTROL = ControlTopics("__sage-acme")


class Account:
    """Brokers in memory that allow an account what a table says, as Kafka tells it."""

    address, origin, control_topics = "in-memory", "a test", CONTROL

    def __init__(self, *granted: Right, topics: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> None:
        self.memory = InMemoryClients()
        self.memory.admin().create([TopicSpec(name) for name in topics])
        self.granted = granted
        self.groups = list(groups)

    def clients(self) -> InMemoryClients:
        account = self

        class Admin(InMemoryAdmin):
            def list_groups(self) -> list[str]:
                return account.groups

            def allowed(self, kind: Resource, name: str) -> Mapping[Operation, bool]:
                return account.allowed(kind, name, {info.name for info in self.list_topics()})

        self.memory.admin = lambda: Admin(self.memory._state)  # type: ignore[method-assign]
        return self.memory

    def allowed(self, kind: Resource, name: str, topics: set[str]) -> dict[Operation, bool]:
        found = {
            operation
            for right in self.granted
            if right.kind == kind and (name.startswith(right.name) if right.prefixed else name == right.name)
            for operation in right.operations
        }
        told: dict[Operation, bool] = {operation: operation in found for operation in OPERATIONS}
        told["Describe"] = bool(found)
        if kind == "transactional-id" or not found or name in topics or name in self.groups:
            return told
        return {one: value for one, value in told.items() if one in {"Describe", "Create"} and kind == "topic"}


def found_in(account: Account, role: Role | None, tmp_path: Path) -> list[Finding]:
    world = World(tmp_path, lambda: account, lambda _: {}, lambda: ())
    return list(rights(world, "acme-", role))


@pytest.mark.parametrize("role", ROLES)
def test_who_has_the_rights_of_a_role_lacks_nothing(role: Role, tmp_path: Path) -> None:
    account = Account(*rights_of(role, "acme-", CONTROL), topics=("acme-qa.ask", *CONTROL.all), groups=("acme-qa.ask",))
    (found,) = found_in(account, role, tmp_path)
    assert (found.state, found.found) == ("ok", f"this account may be a {role} of acme-* under __sage-acme")


@pytest.mark.parametrize("role", ROLES)
def test_each_right_that_is_taken_away_is_named_with_the_command_that_gives_it(role: Role, tmp_path: Path) -> None:
    table = rights_of(role, "acme-", CONTROL)
    for gone in table:
        account = Account(
            *(right for right in table if right is not gone), topics=("acme-qa.ask", *CONTROL.all),
            groups=("acme-qa.ask",),
        )  # fmt: skip
        failed = [each for each in found_in(account, role, tmp_path) if each.state == "fail"]
        assert [each.found.partition(" (")[0] for each in failed] == [
            f"no {', '.join(gone.operations)} on {gone.shown}"
        ]
        words = shlex.split(failed[0].advice)
        assert words[words.index(f"--{gone.kind}") + 1] == gone.name
        assert ("prefixed" in words) == gone.prefixed


def test_what_does_not_exist_yet_is_not_called_missing() -> None:
    account = Account(*rights_of("worker", "acme-", CONTROL), topics=CONTROL.all)
    missing = list(missing_rights(account.clients().admin(), "worker", "acme-", CONTROL))
    assert [(one.right.shown, one.operations) for one in missing] == [("topic acme-*", ()), ("group acme-*", ())]
    assert missing[0].unknown == ("Read", "Write", "Delete")


def test_a_worker_that_could_deploy_is_warned_of(tmp_path: Path) -> None:
    wide = Right("topic", "", True, ("Read", "Write", "Create", "Delete"), "everything")
    account = Account(*rights_of("worker", "acme-", CONTROL), wide, topics=CONTROL.all)
    (warned,) = [one for one in found_in(account, "worker", tmp_path) if one.state == "warn"]
    assert "who has it can deploy" in warned.found


def test_without_a_role_nothing_fails_and_each_that_fits_is_shown(tmp_path: Path) -> None:
    account = Account(
        *rights_of("reader", "acme-", CONTROL), topics=("acme-qa.ask", *CONTROL.all), groups=("acme-qa.ask",)
    )
    found = found_in(account, None, tmp_path)
    assert {one.check for one in found if one.state == "ok"} == {"reader rights"}
    assert {one.state for one in found} == {"ok", "info"}


def test_no_role_but_the_deployer_writes_what_shall_run_and_no_tenant_reaches_another() -> None:
    for role in ROLES:
        for right in rights_of(role, "acme-", CONTROL):
            covers = CONTROL.topologies.startswith(right.name) if right.prefixed else CONTROL.topologies == right.name
            if role != "deployer" and right.kind == "topic" and covers:
                assert right.operations == ("Read",)
            assert not right.prefixed or right.name
            for foreign in ("blue-qa.ask", "__sage-blue.topologies", "sage-blue-deploy-blue-qa", "__sage.topologies"):
                assert not (foreign.startswith(right.name) if right.prefixed else foreign == right.name)


def test_the_documentation_has_the_table_of_the_code() -> None:
    for page in ("security.md", "security.zh-CN.md"):
        text = (Path(__file__).parents[3] / "docs" / page).read_text(encoding="utf-8")
        for role in ROLES:
            for right in rights_of(role, "acme-", CONTROL):
                assert f"`{right.name}{'*' if right.prefixed else ''}`" in text
                assert ", ".join(right.operations) in text
    english = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    for right in rights_of("worker", "acme-", CONTROL):
        words = " ".join(f"--operation {one}" for one in right.operations)
        assert f"{words} --{right.kind} {right.name}" in english


def test_a_broker_without_accounts_is_said_to_be_one_instead_of_what_it_lacks(tmp_path: Path) -> None:
    world = World(tmp_path, Account, lambda _: {"embedded": "true"}, lambda: ())
    (found,) = rights(world, "acme-")
    assert (found.state, found.advice) == ("ok", "to have rights of its own, use Apache Kafka")
    assert "no ACLs" in found.found
