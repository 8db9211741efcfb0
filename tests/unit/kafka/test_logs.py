"""librdkafka's words on Python's logging."""

from __future__ import annotations

import logging
import time

import pytest

from sage.kafka.clients import ConfluentClients
from sage.kafka.logs import client_logger
from tests.support.brokers import free_port
from tests.support.waiting import wait_until


def test_a_lost_connection_is_a_matter_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    logger = client_logger("consumer")
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.error("FAIL [x]: Connect to ipv4#127.0.0.1:1 failed: Connection refused")
        logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        logger.error("FAIL [x]: Connect to ipv4#127.0.0.1:1 failed: Connection refused")
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_nothing_reaches_the_terminal_by_itself(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    producer = ConfluentClients(f"127.0.0.1:{free_port()}").producer()
    started = time.monotonic()
    with caplog.at_level(logging.DEBUG, logger="sage.kafka"):
        producer.produce("t", b"x")
        wait_until(lambda: producer.poll(0.1) or caplog.records or time.monotonic() - started > 5)
    producer.close(0)
    assert any("refused" in record.getMessage() for record in caplog.records)
    captured = capfd.readouterr()
    assert "rdkafka" not in captured.err + captured.out
    assert "refused" not in captured.err + captured.out
