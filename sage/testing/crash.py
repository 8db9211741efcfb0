"""The death of a driven process, on demand."""

from __future__ import annotations


class Crash(BaseException):
    """Raised anywhere inside a driven topology, the process dies there, as by kill -9, and starts again.

    Nothing that catches exceptions can survive it: from the moment of the crash on, nothing of the old process
    reaches the broker any more.

    ::

        driver.fail_next("generate", Crash())                  # before the step's code
        driver.fail_next("generate", Crash(after=True))        # after it: an answer was paid for, and not yet written
        driver.broker.fail_next_commit(Crash())                # outputs are written, offsets not
        ScriptedChatModel(["one", Crash()])                    # while the model is asked

    Args:
        after: with ``fail_next``: the step's code runs first.
    """

    def __init__(self, *, after: bool = False) -> None:
        super().__init__("killed on demand")
        self.after = after
