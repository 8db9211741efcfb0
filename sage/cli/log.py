"""What the parts of SAGE log, as lines on standard error that don't tear a progress line apart."""

from __future__ import annotations

import logging

from sage.cli.terminal import Terminal


class TerminalHandler(logging.Handler):
    """Writes each message as one line of the terminal; its traceback only with ``--debug``."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message; one that can't be written is reported as logging does."""
        try:
            text = record.getMessage()
            if self._terminal.flags.debug:
                text = f"{record.levelname.lower()} {record.name}: {text}"
                if record.exc_info:
                    text += f"\n{logging.Formatter().formatException(record.exc_info)}"
            self._terminal.error(text)
        except Exception:
            self.handleError(record)


def log_to(terminal: Terminal) -> None:
    """Send SAGE's log to ``terminal``: warnings; with ``--debug`` everything, with ``--quiet`` errors alone."""
    logger = logging.getLogger("sage")
    for handler in [one for one in logger.handlers if isinstance(one, TerminalHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(TerminalHandler(terminal))
    flags = terminal.flags
    logger.setLevel(logging.DEBUG if flags.debug else logging.ERROR if flags.quiet else logging.WARNING)
