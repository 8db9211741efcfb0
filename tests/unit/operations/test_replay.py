"""Dead letters go back to the stage that gave them up: each once, and only those that were meant."""

from __future__ import annotations

import threading
import time

import pytest

from sage.errors import NotFound, TransientFailure
from sage.model import dead_letter_headers, retry_headers
from sage.model.partition import TopicPartition
from sage.operations.letter_filter import LetterFilter
from sage.operations.replay import preview, replay, replay_group
from sage.operations.replay_choice import Choice
from sage.ports import TransactionAbortable
from sage.testing.broker import InMemoryClients
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
