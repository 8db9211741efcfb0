"""librdkafka's errors in SAGE's words."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from sage import errors
from sage.kafka.errors import (
    commit_failure,
    delivery_failure,
    kafka_error,
    poll_failure,
    sage_error,
    transaction_failure,
    unreachable,
)
from sage.ports import CommitRefused, ProducerFatal, TransactionAbortable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._AUTHENTICATION, errors.Unauthorized),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, errors.Forbidden),
        (KafkaError._ALL_BROKERS_DOWN, errors.Unreachable),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, errors.NotFound),
        (KafkaError.MSG_SIZE_TOO_LARGE, errors.RecordTooLarge),
        (KafkaError._INVALID_ARG, errors.InvalidTopology),
        (KafkaError.REBALANCE_IN_PROGRESS, errors.TransientFailure),
        (KafkaError.KAFKA_STORAGE_ERROR, errors.StageStopped),
    ],
)
def test_a_failed_call(code: int, kind: type[errors.SageError]) -> None:
    found = sage_error(KafkaError(code), "create topic t", address="k:9092")
    assert type(found) is kind
    assert str(found).startswith("create topic t: ")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.ILLEGAL_GENERATION, CommitRefused),
        (KafkaError.FENCED_MEMBER_EPOCH, CommitRefused),
        (KafkaError.UNKNOWN_MEMBER_ID, CommitRefused),
        (KafkaError.REBALANCE_IN_PROGRESS, errors.TransientFailure),
        (KafkaError.STALE_MEMBER_EPOCH, errors.TransientFailure),
        (KafkaError._WAIT_COORD, errors.TransientFailure),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, errors.Forbidden),
    ],
)
def test_a_failed_commit(code: int, kind: type[Exception]) -> None:
    assert type(commit_failure(KafkaError(code), address="k:9092")) is kind


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._MAX_POLL_EXCEEDED, KafkaError._TIMED_OUT]
)
def test_what_a_client_mends_by_itself_is_no_failure(code: int) -> None:
    assert poll_failure(KafkaError(code), "consume", address="k:9092") is None


def test_a_fatal_event_stops_the_stage() -> None:
    assert isinstance(
        poll_failure(KafkaError(KafkaError._FATAL, "broken", True), "consume", address="k:9092"), errors.StageStopped
    )


def test_a_transactions_failure_is_fatal_abortable_or_to_be_tried_again() -> None:
    fatal = KafkaError(KafkaError._FENCED, "fenced", True, False, False)
    abortable = KafkaError(KafkaError.UNKNOWN, "abort", False, False, True)
    retriable = KafkaError(KafkaError._TIMED_OUT, "late", False, True, False)
    kinds = [type(transaction_failure(each, "commit", address="k")) for each in (fatal, abortable, retriable)]
    assert kinds == [ProducerFatal, TransactionAbortable, errors.TransientFailure]


@pytest.mark.parametrize(
    ("code", "too_large", "retriable"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, True, False),
        (KafkaError._MSG_TIMED_OUT, False, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False, False),
    ],
)
def test_a_failed_delivery(code: int, too_large: bool, retriable: bool) -> None:
    found = delivery_failure(KafkaError(code), "t", 3)
    assert (found.topic, found.partition, found.too_large, found.retriable) == ("t", 3, too_large, retriable)


def test_the_unreachable_broker_has_the_documented_words() -> None:
    assert str(unreachable("localhost:9092", "refused", 10.2, origin="SAGE_BOOTSTRAP_SERVERS")) == (
        "cannot reach localhost:9092 (refused, 10 s; from SAGE_BOOTSTRAP_SERVERS). "
        "Start one with `sage up`, or see `sage doctor`. [SAGE201]"
    )
    assert "(refused, 10 s)." in str(unreachable("localhost:9092", "refused", 10.2))


def test_an_exception_with_plain_text_is_an_error_too() -> None:
    assert kafka_error(KafkaException("odd")).str() == "odd"


def test_a_consumer_that_is_of_no_more_use_says_so_by_its_code_alone() -> None:
    found = poll_failure(KafkaError(KafkaError._FATAL, "Fatal error: fenced"), "consume", address="k:9092")
    assert isinstance(found, errors.StageStopped)


def test_a_static_members_name_that_is_taken_may_be_free_later() -> None:
    taken = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
    error = KafkaError(KafkaError._FATAL, f"Fatal error: {taken}: ConsumerGroupHeartbeat fatal error: {taken}")
    assert isinstance(poll_failure(error, "consume", address="k:9092"), errors.TransientFailure)


def test_a_broker_that_leaves_the_cluster_in_mid_question_is_away_and_not_the_end_of_a_stage() -> None:
    error = sage_error(KafkaError(KafkaError._DESTROY_BROKER), "describe topics", address="localhost:9092")
    assert isinstance(error, errors.Unreachable)
