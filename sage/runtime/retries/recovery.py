"""What becomes of a record that failed: another try, a dead letter, a counted skip, or a stop."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Literal

from sage.errors import SageError, StageStopped
from sage.model.secrets import hide_secrets
from sage.ports import RawMessage
from sage.runtime.retries.failures import Verdict, classify
from sage.runtime.retries.retry import delay_before
from sage.runtime.runs.counters import StepCounters
from sage.spec.options import OnError, RetryPolicy

logger = logging.getLogger("sage.runtime")


@dataclass(frozen=True, slots=True)
class Decision:
    """``retry`` after ``delay`` seconds, or ``bury`` (dead letter, or ``error`` branch), or ``skip``."""

    action: Literal["retry", "bury", "skip"]
    delay: float = 0.0


@dataclass(slots=True)
class Recovery:
    """One step's rules for failed records. ``has_branch``: somebody reads them, so they are not dead."""

    topology: str
    step: str
    retry: RetryPolicy
    on_error: OnError
    counters: StepCounters
    random: random.Random
    has_branch: bool = False

    def decide(self, error: BaseException, message: RawMessage, attempts: int) -> Decision:
        """What to do after the ``attempts``-th try of ``message`` failed.

        Raises:
            SageError: no other record would fare better, or the step says ``on_error: fail``; the stage stops with
                this record uncommitted.
        """
        verdict = classify(error)
        self.counters.last_error = hide_secrets(f"{type(error).__name__}: {error}")
        if verdict is Verdict.STOP:
            raise self._stopped(error, message, "no other record would fare better")
        if verdict is Verdict.RETRY:
            delay = delay_before(attempts, self.retry, error, self.random)
            if delay is not None:
                self.counters.retried += 1
                return Decision("retry", delay)
        return self._last_action(error, message, attempts)

    def is_used_up(self, error: BaseException, attempts: int) -> bool:
        """Whether another try might have helped, and there is none left after ``attempts``."""
        return attempts >= self.retry.attempts and classify(error) is Verdict.RETRY

    def _last_action(self, error: BaseException, message: RawMessage, attempts: int) -> Decision:
        place = f"{message.topic()}-{message.partition()}@{message.offset()}"
        if self.has_branch:
            logger.info('%s step "%s": %s goes to the error branch: %s', self.topology, self.step, place, error)
            return Decision("bury")
        if self.on_error == "fail":
            raise self._stopped(error, message, "the step says on_error: fail") from error
        if self.on_error == "skip":
            self.counters.skipped += 1
            logger.warning(
                '%s step "%s": skipped %s after %s: %s', self.topology, self.step, place, _tries(attempts), error
            )
            return Decision("skip")
        self.counters.dead += 1
        logger.warning(
            '%s step "%s": %s is dead after %s: %s: %s',
            self.topology, self.step, place, _tries(attempts), type(error).__name__, error,
        )  # fmt: skip
        return Decision("bury")

    def _stopped(self, error: BaseException, message: RawMessage, reason: str) -> SageError:
        place = f"{message.topic()}-{message.partition()}@{message.offset()}"
        where = f'{self.topology} step "{self.step}" at {place}'
        if isinstance(error, SageError):
            return error.at(where)
        return StageStopped(f"{type(error).__name__}: {error}; {reason}; nothing was committed past it", where=where)


def _tries(attempts: int) -> str:
    return "1 try" if attempts == 1 else f"{attempts} tries"
