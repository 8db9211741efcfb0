"""Dead letters go back to the stage that gave them up: each once, and only those that were meant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from sage.cluster import cluster_view
from sage.cluster.deployer import Deployer
from sage.errors import NotFound, TransientFailure
from sage.model import dead_letter_headers, retry_headers
from sage.model.keys import partition_for
from sage.model.partition import TopicPartition
from sage.operations.letter_filter import LetterFilter
from sage.operations.replay import preview, replay, replay_group
from sage.operations.replay_choice import Choice, ReplayReport
from sage.plan.diff import ALLOW_ORPHANS
from sage.ports import TopicSpec, TransactionAbortable
from sage.testing.broker import InMemoryClients
from tests.unit.cluster.pipelines import counting
from tests.unit.operations.letters import bury, headers_of, letter_headers, retry_topics, values

DLQ = TopicPartition("qa.dlq", 0)


def test_a_letter_becomes_the_record_that_it_was_in_its_stages_retry_topic(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b'{"query": "?"}', letter_headers(partition=1, offset=7, step="generate", stage="generate"))
    report = replay(clients, "qa", Choice())
    (record,) = clients.messages("qa.generate.retry")
    assert (record.value(), record.key(), record.partition()) == (b'{"query": "?"}', b"k", 1)
    assert record.timestamp()[1] == 1_700_000_000_000
    assert record.headers() == [
        (dead_letter_headers.REPLAYS, b"1"),
        ("traceparent", b"00-1-2-01"),
        (retry_headers.TOPIC, b"qa.prompt"),
        (retry_headers.PARTITION, b"1"),
        (retry_headers.OFFSET, b"7"),
        (retry_headers.DUE, b"0"),
        (retry_headers.ATTEMPTS, b"0"),
    ]
    assert report.replayed == 1
    assert dict(report.reasons) == {"KeyError at step generate": 1}
    assert dict(report.topics) == {"qa.generate.retry": 1}


def test_a_letter_from_before_its_edge_grew_goes_to_where_its_key_is_by_now(clients: InMemoryClients) -> None:
    clients.admin().create([TopicSpec("qa.prompt", 8)])
    retry_topics(clients, partitions=8)
    keys = [b"k%d" % number for number in range(8)]
    for key in keys:
        bury(clients, key, letter_headers(partition=partition_for(key, 2)), key=key)
    bury(clients, b"no key", letter_headers(partition=1), key=None)
    replay(clients, "qa", Choice())
    found = {message.value(): message.partition() for message in clients.messages("qa.generate.retry")}
    assert found == {**{key: partition_for(key, 8) for key in keys}, b"no key": 1}


def test_a_letter_of_a_foreign_topic_goes_to_the_partition_that_it_was_read_from(clients: InMemoryClients) -> None:
    clients.admin().create([TopicSpec("questions", 8)])
    retry_topics(clients, partitions=8)
    place = 1 - partition_for(b"k", 8) % 2
    headers = [
        (name, b"questions" if name == dead_letter_headers.TOPIC else value)
        for name, value in letter_headers(partition=place)
    ]
    bury(clients, b"1", headers)
    replay(clients, "qa", Choice())
    assert [message.partition() for message in clients.messages("qa.generate.retry")] == [place]


def test_a_fused_step_is_replayed_through_its_stage(clients: InMemoryClients) -> None:
    retry_topics(clients, "clean", "shout")
    bury(clients, b"1", letter_headers(step="shout", stage="clean"))
    bury(clients, b"2", letter_headers(step="shout", stage=""))  # from before the stage was written down
    replay(clients, "qa", Choice())
    assert (values(clients, "qa.clean.retry"), values(clients, "qa.shout.retry")) == ([b"1"], [b"2"])


def test_nothing_is_replayed_twice_and_new_letters_are_replayed(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"1")
    assert replay(clients, "qa", Choice()).replayed == 1
    assert replay(clients, "qa", Choice()).replayed == 0
    bury(clients, b"2")
    assert replay(clients, "qa", Choice()).replayed == 1
    assert values(clients) == [b"1", b"2"]


def test_what_a_filter_leaves_out_is_replayed_later_and_the_rest_not_again(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number in range(6):
        error = "builtins.KeyError" if number % 2 else "builtins.TimeoutError"
        bury(clients, b"%d" % number, letter_headers(error=error))
    report = replay(clients, "qa", Choice(LetterFilter.parse(["error=Key*"])))
    assert (report.replayed, report.left_out) == (3, 3)
    assert values(clients) == [b"1", b"3", b"5"]
    assert replay(clients, "qa", Choice()).replayed == 3
    assert values(clients) == [b"1", b"3", b"5", b"0", b"2", b"4"]


def test_the_markers_of_transactions_hold_nothing_up(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number in range(3):
        bury(clients, b"%d" % number, transaction=True)
    assert replay(clients, "qa", Choice()).replayed == 3
    assert clients.committed(replay_group("qa")) == {DLQ: 5}  # the last marker is never given


def test_at_most_so_many_and_the_next_run_goes_on(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number in range(5):
        bury(clients, b"%d" % number)
    assert replay(clients, "qa", Choice(most=2)).replayed == 2
    assert values(clients) == [b"0", b"1"]
    assert replay(clients, "qa", Choice(most=9)).replayed == 3
    assert values(clients) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_letter_that_died_as_often_as_allowed_stays(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"worn", letter_headers(replays=2))
    bury(clients, b"once", letter_headers(replays=1))
    report = replay(clients, "qa", Choice(max_replays=2))
    assert (report.replayed, report.worn_out) == (1, 1)
    (record,) = clients.messages("qa.generate.retry")
    assert (record.value(), headers_of(record)[dead_letter_headers.REPLAYS]) == (b"once", "2")
    assert replay(clients, "qa", Choice(max_replays=3)).replayed == 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("reason", b"by hand")], "it does not say where it was read: another program wrote it"),
        (letter_headers(step="gone"), "topic qa.gone.retry does not exist: the step was renamed or removed, or"),
        (letter_headers(partition=5), "topic qa.generate.retry has 2 partitions, and it was read from partition 5"),
    ],
)
def test_a_letter_that_cannot_be_replayed_is_counted_and_stays(
    clients: InMemoryClients, headers: list[tuple[str, bytes | None]], reason: str
) -> None:
    retry_topics(clients)
    bury(clients, b"lost", headers)
    bury(clients, b"fine")
    report = replay(clients, "qa", Choice())
    assert report.replayed == 1
    assert list(report.impossible.values()) == [1]
    assert next(iter(report.impossible)).startswith(reason)
    assert values(clients) == [b"fine"]
    assert sum(replay(clients, "qa", Choice()).impossible.values()) == 1  # still there


def test_a_letter_that_grew_over_the_limit_stays() -> None:
    clients = InMemoryClients(message_max_bytes=800)
    retry_topics(clients)
    bury(clients, b"x" * 200, letter_headers(own=[("note", b"y" * 10)]))
    small = InMemoryClients(message_max_bytes=300)
    small._state = clients._state  # the same broker, after its limit was lowered
    assert dict(replay(small, "qa", Choice()).impossible) == {"it is too large for topic qa.generate.retry": 1}


def test_a_preview_counts_by_reason_and_changes_nothing(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"1")
    bury(clients, b"2", letter_headers(step="generate", error="sage.errors.TransientFailure"))
    bury(clients, b"3")
    report = preview(clients, "qa", Choice())
    assert dict(report.reasons) == {"KeyError at step generate": 2, "TransientFailure at step generate": 1}
    assert (report.replayed, report.dry_run) == (3, True)
    assert values(clients) == []
    assert clients.committed(replay_group("qa")) == {}
    assert preview(clients, "qa", Choice(most=1)).replayed == 1
    replay(clients, "qa", Choice(most=2))
    assert preview(clients, "qa", Choice()).replayed == 1


def test_an_aborted_batch_leaves_nothing_and_is_written_again(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"1")
    clients.fail_next_transaction(TransactionAbortable("the group has moved on"))
    assert replay(clients, "qa", Choice()).replayed == 1
    assert values(clients) == [b"1"]


def test_a_broker_that_aborts_every_batch_ends_the_replay_with_nothing_written(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"1")
    for _ in range(10):
        clients.fail_next_transaction(TransactionAbortable("no"))
    with pytest.raises(TransientFailure, match="takes no batch: no; nothing of it was written"):
        replay(clients, "qa", Choice())
    assert values(clients) == []
    assert clients.committed(replay_group("qa")) == {}


def test_a_crash_before_the_commit_replays_once(clients: InMemoryClients) -> None:
    retry_topics(clients)
    bury(clients, b"1")
    clients.fail_next_transaction(RuntimeError("killed"))  # after the records, before the commit
    with pytest.raises(RuntimeError):
        replay(clients, "qa", Choice())
    assert replay(clients, "qa", Choice()).replayed == 1
    assert values(clients) == [b"1"]


class EmbeddedClients(InMemoryClients):
    """A broker whose transactions take no offsets."""

    @property
    def is_embedded(self) -> bool:
        return True


def test_without_transactions_the_offsets_follow_the_brokers_answer() -> None:
    clients = EmbeddedClients()
    retry_topics(clients)
    for number in range(3):
        bury(clients, b"%d" % number)
    clients.fail_next_delivery("qa.generate.retry", reason="disk full")
    with pytest.raises(TransientFailure, match="1 of 3 records were not taken: disk full"):
        replay(clients, "qa", Choice())
    assert values(clients) == [b"1", b"2"]
    assert replay(clients, "qa", Choice()).replayed == 1
    assert values(clients) == [b"1", b"2", b"0"]


def test_asked_to_stop_it_finishes_the_batch_in_hand(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number in range(20):
        bury(clients, b"%d" % number)
    stop = threading.Event()
    found = []
    worker = threading.Thread(target=lambda: found.append(replay(clients, "qa", Choice(rate=0.2), stop=stop)))
    worker.start()
    deadline = time.monotonic() + 10
    while not values(clients) and time.monotonic() < deadline:
        stop.wait(0.01)
    stop.set()
    worker.join(10)
    (report,) = found
    assert report.interrupted
    assert report.replayed == len(values(clients)) == 2  # ten seconds' worth
    assert clients.committed(replay_group("qa")) == {DLQ: 2}


def test_a_rate_is_kept(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number in range(6):
        bury(clients, b"%d" % number)
    started = time.monotonic()
    assert replay(clients, "qa", Choice(rate=20.0)).replayed == 6
    assert time.monotonic() - started >= 0.3


def test_a_topology_that_never_ran_is_told(clients: InMemoryClients) -> None:
    for operation in (preview, replay):
        with pytest.raises(NotFound, match=r"topic other\.dlq: does not exist; no topology named other has run"):
            operation(clients, "other", Choice())


def test_no_dead_letters_is_nothing_to_do(clients: InMemoryClients) -> None:
    retry_topics(clients, "dlq-is-there")
    bury(clients, b"1")
    clients.trim({DLQ: 1})
    assert replay(clients, "qa", Choice()).replayed == 0


@pytest.fixture
def deployer(clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    monkeypatch.setattr(cluster_view, "PATIENCE", 0.0)  # no worker is to be heard of
    clients.admin().create([TopicSpec("qa-in", 2)])
    return Deployer(clients, who="ann@laptop")


def test_letters_of_a_renamed_step_go_to_the_stage_that_it_is_now(clients: InMemoryClients, deployer: Deployer) -> None:
    deployer.deploy(counting())
    deployer.stop("qa", patience=0.0)
    bury(clients, b"1", letter_headers(step="count"))
    deployer.deploy(counting(step="tally", moved={"count": "tally"}))
    report = replay(clients, "qa", Choice())
    assert (values(clients, "qa.count.retry"), values(clients, "qa.tally.retry")) == ([], [b"1"])
    assert dict(report.topics) == {"qa.tally.retry": 1}


@pytest.mark.parametrize("run", [replay, preview])
def test_letters_of_a_step_that_is_gone_stay(
    clients: InMemoryClients, deployer: Deployer, run: Callable[..., ReplayReport]
) -> None:
    deployer.deploy(counting())
    deployer.stop("qa", patience=0.0)
    bury(clients, b"1", letter_headers(step="count"))
    deployer.deploy(counting(step="tally"), allow={ALLOW_ORPHANS})
    report = run(clients, "qa", Choice())
    (reason,) = report.impossible
    assert reason.startswith("version 2, which is deployed, has no stage count: it was removed")
    assert (report.replayed, values(clients, "qa.count.retry")) == (0, [])
