"""librdkafka's log lines, sent to Python's logging instead of the terminal."""

from __future__ import annotations

import logging
from typing import Final

_ROUTINE: Final = (
    "REQTMOUT",
    "FAIL",
    "Disconnected",
    "CONFWARN",
    "GETPID",
    "TXNERR",
    "FATAL",
)
"""Facilities that librdkafka logs at error level for what it mends by itself, or tells us as an error besides."""


class _Routine(logging.Filter):
    """Lowers lost connections to debug: the ports report what matters of them as errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.INFO and record.getMessage().startswith(_ROUTINE):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


def client_logger(kind: str) -> logging.Logger:
    """The logger that a client of this kind (``consumer``, ``producer``, ``admin``) writes to."""
    logger = logging.getLogger(f"sage.kafka.librdkafka.{kind}")
    if not logger.filters:
        logger.addFilter(_Routine())
    return logger
