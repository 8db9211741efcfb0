"""Every error that SAGE raises on purpose.

::

    SageError                     what a user can act on; one line, a code, an exit code
    ├── InvalidTopology           the pipeline as written cannot run                    [SAGE101] exit 3
    │   ├── UnknownName           a step, operator, option or type nobody knows         [SAGE102]
    │   ├── NotInThisVersion      valid, and this version does not have it              [SAGE110]
    │   └── NotImportable         its code cannot be imported on the workers            [SAGE401]
    ├── MissingVariable           a ${VAR} or a secret is not set                       [SAGE301] exit 3
    ├── Unreachable               nobody answers at an address                          [SAGE201] exit 4
    ├── Unauthorized              somebody answers, and refuses us                      [SAGE202] exit 4
    │   └── Forbidden             we are known, and lack a right on a topic or group    [SAGE204] exit 4
    ├── NotFound                  a file, topic, collection, index or model is missing  [SAGE203] exit 4
    ├── PortTaken                 a port asked for is in use                            [SAGE211] exit 1
    ├── FolderInUse               a data folder is held by another process              [SAGE212] exit 1
    ├── DiskFull                  no space left                                         [SAGE213] exit 1
    ├── ServiceFailed             a background service did not start                    [SAGE214] exit 1
    ├── DeadlineExceeded          an operation took longer than it was given            [SAGE220] exit 5
    ├── Conflict                  somebody else changed it first                        [SAGE230] exit 1
    ├── ChangeRefused             it would destroy something; a flag says that it shall [SAGE231] exit 1
    ├── MemoryFailure             a collection cannot do what was asked                 [SAGE601] exit 1
    │   ├── DimensionMismatch     vectors of another length                             [SAGE602]
    │   └── IndexFilterMissing    an index was made with a function that is lost        [SAGE603]
    ├── RecordFailure             one record failed; the others go on                   [SAGE501] exit 1
    │   ├── DecodeFailure         its bytes are not what the edge's format says         [SAGE502]
    │   └── RecordTooLarge        its encoded size is over the broker's limit           [SAGE503]
    ├── TransientFailure          worth another try, bounded                            [SAGE510] exit 1
    │   └── RateLimited           the service asks to wait                              [SAGE511]
    └── StageStopped              a stage gave up with its offsets uncommitted          [SAGE520] exit 1

The message has the shape ``where: what; what was found; what to do [SAGEnnn]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class SageError(Exception):
    """An error with a place, a sentence, a code, and the exit code of the command line.

    Args:
        message: what happened, what was found, what to do; without a final code.
        where: the place the user can go to, for example ``rag.yaml:9:86 steps.retrieve``.
        exit_code: overrides the class's exit code.
    """

    code: ClassVar[str] = "SAGE100"
    default_exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str | None = None, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.exit_code = self.default_exit_code if exit_code is None else exit_code

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} [{self.code}]"

    def at(self, where: str) -> SageError:
        """The same error with its place, for the boundary that knows it; keeps an innermost place."""
        if self.where is None:
            self.where = where
        return self


class InvalidTopology(SageError):
    """The pipeline as written cannot run.

    Args:
        message, where, exit_code: as of every SageError.
        problems: everything that is wrong, where more than one thing is; ``str()`` is then one line for each.

    Attributes:
        problems: what is wrong; the error itself where that is one thing.
    """

    code = "SAGE101"
    default_exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        exit_code: int | None = None,
        problems: Sequence[SageError] = (),
    ) -> None:
        super().__init__(message, where=where, exit_code=exit_code)
        self.problems: tuple[SageError, ...] = tuple(problems) or (self,)

    def __str__(self) -> str:
        if self.problems == (self,):
            return super().__str__()
        return "\n".join(str(problem) for problem in self.problems)

    @staticmethod
    def of(problems: Sequence[SageError]) -> SageError:
        """The error to raise for ``problems`` (at least one): the one itself, or one that holds them all."""
        if len(problems) == 1:
            return problems[0]
        return InvalidTopology(f"{len(problems)} problems", problems=problems)


class UnknownName(InvalidTopology):
    """A name that nothing is registered under."""

    code = "SAGE102"


class NotInThisVersion(InvalidTopology):
    """A documented feature that this version does not have."""

    code = "SAGE110"


class NotImportable(InvalidTopology):
    """Code that workers cannot import: a lambda, a local function, what lives in ``__main__``."""

    code = "SAGE401"


class Unreachable(SageError):
    """Nobody answers at an address."""

    code = "SAGE201"
    default_exit_code = 4


class Unauthorized(SageError):
    """A service answered and refused the credentials."""

    code = "SAGE202"
    default_exit_code = 4


class Forbidden(Unauthorized):
    """The brokers know the account, and it lacks a right; the message names it and the command that gives it."""

    code = "SAGE204"


class NotFound(SageError):
    """A file, topic, collection, index or model does not exist."""

    code = "SAGE203"
    default_exit_code = 4


class PortTaken(SageError):
    """A port that was asked for is in use."""

    code = "SAGE211"


class FolderInUse(SageError):
    """A data folder is held by another process."""

    code = "SAGE212"


class DiskFull(SageError):
    """No space is left where data must be written."""

    code = "SAGE213"


class ServiceFailed(SageError):
    """A background service did not start; ``log_tail`` holds the last lines that it wrote."""

    code = "SAGE214"

    def __init__(self, message: str, *, where: str | None = None, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message, where=where)
        self.log_tail = log_tail


class DeadlineExceeded(SageError):
    """An operation took longer than it was given."""

    code = "SAGE220"
    default_exit_code = 5


class Conflict(SageError):
    """Somebody else changed the same thing first; nothing was written. Look at it again, and repeat what still fits."""

    code = "SAGE230"


class ChangeRefused(SageError):
    """A change of a deployed topology that would lose data, state or order, and was not asked for by its flag."""

    code = "SAGE231"


class MissingVariable(SageError):
    """A variable or secret that the topology refers to is not set."""

    code = "SAGE301"
    default_exit_code = 3


class RecordFailure(SageError):
    """One record cannot be processed. It becomes a dead letter unless the step says otherwise."""

    code = "SAGE501"


class DecodeFailure(RecordFailure):
    """A record's bytes are not what its edge's format says."""

    code = "SAGE502"


class RecordTooLarge(RecordFailure):
    """A record's encoded size, headers included, is over the limit."""

    code = "SAGE503"


class TransientFailure(SageError):
    """A failure that another try may mend."""

    code = "SAGE510"


class RateLimited(TransientFailure):
    """The service asks to wait; ``retry_after`` is in seconds, where the service said it."""

    code = "SAGE511"

    def __init__(self, message: str, *, where: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, where=where)
        self.retry_after = retry_after


class StageStopped(SageError):
    """A stage stopped with its offsets uncommitted; nothing is lost, and it must be looked at."""

    code = "SAGE520"


class MemoryFailure(SageError):
    """A collection cannot do what was asked."""

    code = "SAGE601"


class DimensionMismatch(MemoryFailure):
    """Vectors of another length than the collection's."""

    code = "SAGE602"


class IndexFilterMissing(MemoryFailure):
    """An index was made with a filter function that this process does not have."""

    code = "SAGE603"
