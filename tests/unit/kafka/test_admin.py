"""What an admin client leaves behind; what it asks is in ``tests/contract/kafka``."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka.admin import (  # pyright: ignore[reportPrivateImportUsage] # not in __all__
    ClusterMetadata,
    ConsumerGroupListing,
    ListConsumerGroupsResult,
    ListOffsetsResultInfo,
)

from sage.errors import Forbidden, Unreachable
from sage.kafka.admin import ConfluentAdmin
from sage.model.partition import TopicPartition
from tests.support.waiting import wait_until

TASKS = Path("/proc/self/task")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """As in a process that makes few objects: an idle worker."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def threads() -> set[str]:
    """Ids of librdkafka's threads, of whichever client: those of earlier tests may be ending."""
    found = set()
    for task in TASKS.iterdir():
        with suppress(FileNotFoundError):  # it has just ended
            if (task / "comm").read_text().startswith("rdk:"):
                found.add(task.name)
    return found


@pytest.mark.skipif(not TASKS.exists(), reason="this system does not show its threads")
@pytest.mark.usefixtures("no_collector")
def test_its_threads_end_when_it_is_closed_without_waiting_for_the_collector() -> None:
    before = threads()
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    own = threads() - before
    assert own
    admin.close()
    admin.close()
    wait_until(lambda: not own & threads(), what="its threads are gone")


def test_a_question_after_its_end_says_so() -> None:
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    admin.close()
    with pytest.raises(Unreachable, match=r"the connection to 127\.0\.0\.1:9 is closed"):
        admin.list_topics()


class MovedLeaders:
    """A client whose first answers come from where the leader was; it goes there until it looks for the new one."""

    def __init__(self, first: int | KafkaError) -> None:
        self._first = first
        self._has_looked = False

    def list_offsets(self, request: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        answers: dict[Any, Future[Any]] = {}
        for at in request:
            answers[at] = Future()
            offset = 7 if self._has_looked or at.partition else self._first
            if isinstance(offset, KafkaError):
                answers[at].set_exception(KafkaException(offset))
            else:
                answers[at].set_result(ListOffsetsResultInfo(offset, 0, 0))
        return answers

    def list_topics(self, topic: str, timeout: float) -> None:
        assert (topic, timeout) == ("t", 3.0)
        self._has_looked = True

    def poll(self, timeout: float) -> int:
        return 0


@pytest.mark.parametrize(
    "first",
    [OFFSET_INVALID, KafkaError(KafkaError.FENCED_LEADER_EPOCH), KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)],
)
def test_no_offset_is_no_answer_and_a_new_leader_is_looked_for(first: int | KafkaError) -> None:
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    admin._open_client = MovedLeaders(first)  # type: ignore[assignment]
    places = [TopicPartition("t", 0), TopicPartition("t", 1)]
    assert admin.end_offsets(places, committed=False) == dict.fromkeys(places, 7)
    admin.close()


class Stopped:
    """A client whose process is stopped in the middle of its first questions, for a minute each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self._times = times
        self._stopped = 0.0
        self.asked = 0
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + self._stopped)

    def list_topics(self, timeout: float) -> ClusterMetadata:
        self.asked += 1
        if self.asked > self._times:
            return ClusterMetadata()
        self._stopped += 60.0
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def poll(self, timeout: float) -> int:
        return 0


def test_a_process_that_was_stopped_while_it_asked_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    admin._open_client = stopped = Stopped(monkeypatch, 1)  # type: ignore[assignment]
    assert admin.list_topics() == []
    assert stopped.asked == 2
    admin.close()


def test_a_broker_that_never_answers_in_time_is_reported_after_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    admin._open_client = stopped = Stopped(monkeypatch, 9)  # type: ignore[assignment]
    with pytest.raises(Unreachable, match=r"cannot reach 127\.0\.0\.1:9"):
        admin.list_topics()
    assert stopped.asked == 2
    admin.close()


class PartlyAway:
    """A client of a cluster of which one broker lists its groups, and another fails that way before it does."""

    def __init__(self, *failures: int) -> None:
        self._failures = list(failures)
        self.has_looked = False

    def list_consumer_groups(self, request_timeout: float) -> Future[ListConsumerGroupsResult]:
        failed = [KafkaError(self._failures.pop(0))] if self._failures else []
        names = ["qa.work"] if failed else ["qa.work", "qa.check"]
        answer: Future[ListConsumerGroupsResult] = Future()
        listed = [ConsumerGroupListing(name, is_simple_consumer_group=False) for name in names]
        answer.set_result(ListConsumerGroupsResult(listed, failed))  # type: ignore[arg-type] # errors without exceptions
        return answer

    def list_topics(self, timeout: float) -> ClusterMetadata:
        self.has_looked = True
        return ClusterMetadata()

    def poll(self, timeout: float) -> int:
        return 0


def admin_of(client: object) -> ConfluentAdmin:
    admin = ConfluentAdmin({"bootstrap.servers": "127.0.0.1:9"}, reader_config=lambda group: {}, address="127.0.0.1:9")
    admin._open_client = client  # type: ignore[assignment]
    return admin


@pytest.mark.parametrize("failure", [KafkaError._TRANSPORT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
def test_groups_of_a_broker_that_does_not_answer_are_asked_for_again(failure: int) -> None:
    client = PartlyAway(failure)
    assert admin_of(client).list_groups() == ["qa.check", "qa.work"]
    assert client.has_looked, "it learns which brokers are gone"


def test_groups_of_some_brokers_are_no_list_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage.kafka.admin._PATIENCE", 0.0)
    with pytest.raises(Unreachable, match=r"cannot reach 127\.0\.0\.1:9"):
        admin_of(PartlyAway(KafkaError._TIMED_OUT)).list_groups()


def test_a_broker_that_may_not_be_asked_for_its_groups_says_so_at_once() -> None:
    with pytest.raises(Forbidden, match="list groups"):
        admin_of(PartlyAway(KafkaError.CLUSTER_AUTHORIZATION_FAILED)).list_groups()
