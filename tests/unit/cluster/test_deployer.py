"""Who deploys first wins, the other is told, and what is desired is one record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from sage.cluster import changes
from sage.cluster import session as sessions
from sage.cluster.deployer import Deployer
from sage.cluster.deploying import VERSIONS_KEPT
from sage.cluster.names import ControlTopics
from sage.cluster.run_guard import refuse_other_plan
from sage.cluster.session import ControlSession
from sage.errors import ChangeRefused, Conflict, InvalidTopology, NotFound, NotImportable, TransientFailure, UnknownName
from sage.model.partition import TopicPartition
from sage.plan.diff import ALLOW_STATE_CHANGE
from sage.plan.planner import compile_plan
from sage.ports import ProducerFatal, TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cluster.pipelines import Spelt, asking, counting, environment, shout

TOPICS = ControlTopics()


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients()
    made.admin().create([TopicSpec("qa-in", 4)])
    return made


@pytest.fixture
def ann(clients: InMemoryClients) -> Deployer:
    return Deployer(clients, who="ann@laptop")


@pytest.fixture
def bob(clients: InMemoryClients) -> Deployer:
    return Deployer(clients, who="bob@desk")


@pytest.fixture
def opened() -> Iterator[list[ControlSession]]:
    made: list[ControlSession] = []
    yield made
    for session in made:
        session.close()


def test_a_deploy_stores_the_plan_makes_its_topics_and_points_to_it(clients: InMemoryClients, ann: Deployer) -> None:
    deployed = ann.deploy(asking(), message="first")
    assert (deployed.deployment.version, deployed.desired.version, deployed.desired.revision) == (1, 1, 1)
    assert {"qa.ask", "qa-out", "qa.dlq"} <= set(clients.topics())
    log = ann.look()
    assert log.current("qa") == deployed.desired
    assert log.deployment("qa", 1) == deployed.deployment
    assert log.deployment("qa", 1).decoded().hash == asking().hash
    assert deployed.deployment.created_by == "ann@laptop"


def test_the_same_plan_again_changes_nothing(clients: InMemoryClients, ann: Deployer) -> None:
    ann.deploy(asking())
    before = len(clients.messages(TOPICS.topologies))
    again = ann.deploy(asking())
    assert again.unchanged
    assert len(clients.messages(TOPICS.topologies)) == before


def test_another_plan_is_the_next_version_and_the_old_one_stays(ann: Deployer) -> None:
    ann.deploy(asking())
    ann.scale("qa", {"ask": 3, "say": 2})
    ann.restart("qa", ["ask"])
    deployed = ann.deploy(asking(config={"top_k": 3}))
    assert deployed.desired.version == 2
    assert deployed.desired.scale == {"ask": 3, "say": 2}
    assert deployed.desired.restarts == {"ask": 1}
    assert ann.look().versions("qa") == [1, 2]


def test_of_two_deployers_that_looked_at_the_same_the_second_is_told_who_was_first(
    ann: Deployer, bob: Deployer
) -> None:
    seen = ann.deploy(asking()).desired.revision
    ann.deploy(asking(config={"top_k": 3}), expected=seen)
    with pytest.raises(Conflict, match=r"ann@laptop.*version 2"):
        bob.deploy(asking(config={"top_k": 4}), expected=seen)
    assert ann.look().current("qa").version == 2


@pytest.mark.parametrize("another_comes", [False, True])
def test_after_a_write_that_failed_a_deployer_writes_only_where_nobody_else_did(
    clients: InMemoryClients, ann: Deployer, bob: Deployer, opened: list[ControlSession], another_comes: bool
) -> None:
    first = ann.deploy(asking())
    session = ann.session("qa")
    opened.append(session)
    clients.fail_next_delivery(TOPICS.topologies, retriable=True)
    with pytest.raises(TransientFailure, match="nothing was written"):
        session.point(replace(first.desired, reason="ann's"))
    if another_comes:
        bob.pause("qa")
        with pytest.raises(Conflict, match="bob@desk"):
            session.point(replace(first.desired, reason="ann's"))
        assert bob.look().current("qa").state == "paused"
    else:
        assert session.point(replace(first.desired, reason="ann's")).reason == "ann's"
        assert bob.look().current("qa").reason == "ann's"


def test_a_deployer_that_comes_back_after_another_is_fenced_and_nothing_of_it_is_seen(
    clients: InMemoryClients, ann: Deployer, bob: Deployer, opened: list[ControlSession]
) -> None:
    old = ann.session("qa")
    opened.append(old)
    deployed = bob.deploy(asking())
    late = replace(deployed.deployment, version=2, message="late")
    with pytest.raises(Conflict, match="bob@desk"):
        old.point(deployed.desired, late)
    log = bob.look()
    assert log.current("qa") == deployed.desired
    assert log.versions("qa") == [1]


def test_a_deployer_that_dies_in_the_middle_leaves_nothing(
    clients: InMemoryClients, ann: Deployer, bob: Deployer
) -> None:
    dead = clients.producer(transactional_id=TOPICS.deployer_id("qa"))
    dead.init_transactions()
    dead.begin_transaction()
    dead.produce(TOPICS.topologies, b'{"format": 1, "name": "qa", "version": 7}', b"qa", partition=0)
    deployed = bob.deploy(asking())
    assert deployed.desired.version == 1
    assert ann.look().changes("qa") == [deployed.desired]


def test_a_commit_without_an_answer_is_asked_again(clients: InMemoryClients, ann: Deployer) -> None:
    clients.fail_next_transaction(TransientFailure("no answer"))
    assert ann.deploy(asking()).desired.version == 1


def test_what_the_broker_refuses_is_not_written(clients: InMemoryClients, ann: Deployer) -> None:
    ann.deploy(asking())
    clients.fail_next_delivery(TOPICS.topologies)
    with pytest.raises(TransientFailure, match="nothing was written"):
        ann.pause("qa")
    assert ann.look().current("qa").state == "running"
    assert ann.pause("qa").state == "paused"


def test_code_that_workers_cannot_import_is_refused_with_its_place(ann: Deployer) -> None:
    env = environment()
    env.from_topic("qa-in").map(lambda value: value, name="clean").map(shout).to("qa-out")
    with pytest.raises(NotImportable, match=r"cannot import a lambda.*Move it to a module") as raised:
        ann.deploy(compile_plan(env.build()))
    assert "SAGE401" in str(raised.value)
    assert 'step "clean"' in str(raised.value)
    assert raised.value.exit_code == 3
    assert not ann.look().pointers


def test_a_literal_secret_is_refused_and_stored_nowhere(clients: InMemoryClients, ann: Deployer) -> None:
    with pytest.raises(InvalidTopology, match="api_key is a secret written out"):
        ann.deploy(asking(config={"api_key": "sk-123"}))
    ann.deploy(asking(config={"api_key": "${KEY}"}))
    assert not any(b"sk-123" in (m.value() or b"") for m in clients.messages(TOPICS.topologies))


def test_a_missing_input_topic_is_told_before_anything_is_written(clients: InMemoryClients, ann: Deployer) -> None:
    with pytest.raises(NotFound, match="other-in"):
        ann.deploy(asking("other"))
    assert not ann.look().pointers


def test_verbs_need_a_topology_and_its_steps(ann: Deployer) -> None:
    with pytest.raises(NotFound, match="no topology 'qa'"):
        ann.pause("qa")
    ann.deploy(asking())
    with pytest.raises(UnknownName, match="did you mean ask"):
        ann.scale("qa", {"aks": 2})
    with pytest.raises(InvalidTopology, match="at least one worker"):
        ann.scale("qa", {"ask": 0})


def test_old_versions_go_and_those_in_use_stay(ann: Deployer) -> None:
    for top_k in range(1, VERSIONS_KEPT + 4):
        ann.deploy(asking(config={"top_k": top_k}))
    versions = ann.look().versions("qa")
    assert versions[-1] == VERSIONS_KEPT + 3
    assert len(versions) == VERSIONS_KEPT + 1


def test_a_worker_is_told_to_drain_and_told_again_that_it_need_not(ann: Deployer) -> None:
    ann.drain_worker("w1")
    assert ann.look().drained_workers == {"w1"}
    ann.drain_worker("w1", drain=False)
    assert ann.look().drained_workers == set()


def test_a_local_run_of_another_plan_is_refused_while_one_is_deployed(clients: InMemoryClients, ann: Deployer) -> None:
    other = asking(config={"top_k": 5})
    refuse_other_plan(InMemoryClients(), TOPICS, other)
    ann.deploy(asking())
    refuse_other_plan(clients, TOPICS, asking())
    with pytest.raises(Conflict, match="another plan"):
        refuse_other_plan(clients, TOPICS, other)
    ann.stop("qa")
    refuse_other_plan(clients, TOPICS, other)


def test_foreign_records_are_named_and_stop_nobody(clients: InMemoryClients, ann: Deployer) -> None:
    ann.deploy(asking())
    producer = clients.producer()
    foreign: list[tuple[bytes | None, bytes]] = [(b"x", b"{"), (b"y@z", b"{}"), (None, b""), (b"q", b'{"format": 1}')]
    for key, value in foreign:
        producer.produce(TOPICS.topologies, value, key, partition=0)
    log = ann.look()
    assert set(log.foreign) == {"x", "y@z", "", "q"}
    assert log.current("qa").version == 1


@pytest.mark.parametrize(
    "new", [{"format": 2}, {"pinned": ["ask"]}, {"state": "asleep"}], ids=lambda new: next(iter(new))
)
def test_what_a_newer_sage_has_written_is_not_written_over(
    clients: InMemoryClients, ann: Deployer, new: dict[str, Any]
) -> None:
    ann.deploy(asking())
    newer = orjson.dumps({**orjson.loads(ann.look().current("qa").encode()), "revision": 7, **new})
    clients.producer().produce(TOPICS.topologies, newer, b"qa", partition=0)
    with pytest.raises(InvalidTopology, match="upgrade"):
        ann.pause("qa")
    assert clients.messages(TOPICS.topologies)[-1].value() == newer


def test_what_nobody_could_have_written_is_written_over(clients: InMemoryClients, ann: Deployer) -> None:
    clients.producer().produce(TOPICS.topologies, b'{"format": 1, "name": "qa", "version": "1"}', b"qa", partition=0)
    assert "version is '1'" in ann.look().foreign["qa"]
    ann.deploy(asking())
    assert (ann.look().current("qa").version, ann.look().foreign) == (1, {})


def test_the_log_follows_what_comes_later(ann: Deployer, bob: Deployer) -> None:
    log = ann.look()
    bob.deploy(asking())
    assert "qa" in log.poll(1.0)
    bob.pause("qa")
    log.read_to_end()
    assert log.current("qa").state == "paused"
    assert [pointer.revision for pointer in log.changes("qa")] == [1, 2]
    assert log.position == ann.look().position
    end = ann.clients.admin().end_offsets([TopicPartition(TOPICS.topologies, 0)])
    assert list(end.values()) == [log.position]


def test_a_renamed_stage_keeps_what_was_said_of_it(ann: Deployer, clients: InMemoryClients) -> None:
    ann.deploy(asking())
    current = ann.scale("qa", {"ask": 3})
    renamed = changes.deploy(current, "qa", 2, ("question", "say"), moved={"ask": "question"})
    assert renamed.scale == {"question": 3}


def test_control_topics_are_made_once_with_as_many_replicas_as_there_are_brokers() -> None:
    three = InMemoryClients(nodes=3)
    Deployer(three)
    Deployer(three)
    described = three.admin().describe(TOPICS.all)
    assert {info.replication_factor for info in described.values()} == {3}
    two: Any = InMemoryClients(nodes=2)
    Deployer(two, ControlTopics("team-a"))
    assert {info.replication_factor for info in two.admin().describe(ControlTopics("team-a").all).values()} == {2}


def test_a_rollback_to_what_cannot_read_the_stored_state_is_refused_without_its_flag(ann: Deployer) -> None:
    ann.deploy(counting())
    ann.deploy(counting(state=Spelt), allow=[ALLOW_STATE_CHANGE])
    with pytest.raises(ChangeRefused, match=r"what is stored can't be read: n was .*string.*--allow-state-change"):
        ann.rollback("qa", 1)
    assert ann.look().current("qa").version == 2, "nothing was changed"
    back = ann.rollback("qa", 1, allow=[ALLOW_STATE_CHANGE])
    assert (back.deployment.version, ann.look().current("qa").version) == (1, 1)


def test_a_scale_that_is_more_than_can_be_of_use_says_so(ann: Deployer) -> None:
    ann.deploy(asking())
    scaled = ann.scale("qa", {"say": 3})
    assert (dict(scaled.scale), scaled.reason) == ({"say": 3}, "scale say=3 of which 1 can be of use")
    assert ann.scale("qa", {"say": 1}).reason == "scale say=1"
    assert ann.scale("qa", {"ask": 9}).reason == "scale ask=9", "how many partitions a foreign topic has is not known"


@pytest.mark.parametrize("answer", [None, ProducerFatal("fenced")], ids=["committed", "no answer but fenced"])
def test_what_was_written_counts_as_written_also_where_somebody_has_gone_on_from_it(
    ann: Deployer, bob: Deployer, monkeypatch: pytest.MonkeyPatch, answer: Exception | None
) -> None:
    ann.deploy(asking())
    monkeypatch.setattr(sessions, "PATIENCE", 1.0)
    with ann.session("qa") as mine:
        commit = mine._commit

        def commit_and_freeze() -> None:
            commit()
            bob.scale("qa", {"ask": 2})
            if answer is not None:
                raise answer

        monkeypatch.setattr(mine, "_commit", commit_and_freeze)
        assert mine.point(changes.pause(mine.log.current("qa"))).revision == 2
    assert [pointer.reason for pointer in ann.look().changes("qa")][1:] == ["pause", "scale ask=2"]
