"""Why a stage runs as it does, in sentences for ``explain``."""

from __future__ import annotations

from collections.abc import Iterator

from sage.graph.topology import Step
from sage.plan.defaults import waiting
from sage.plan.plan import Execution, StageInput
from sage.spec.options import Options


def running_reasons(
    named: Step, execution: Execution, options: Options, inputs: tuple[StageInput, ...], *, copies: bool
) -> Iterator[str]:
    """How a stage is run and how far it can be shared out; ``copies`` says that it has no code."""
    if execution == "async":
        yield f"runs up to {options.concurrency} calls at once per worker: {named.name} {waiting(named)}"
        yield _ordering(named, options)
    elif execution == "sync" and not copies:
        yield "runs in batches on the consumer's thread: its code doesn't wait"
        if named.options.concurrency:
            yield f"concurrency {named.options.concurrency} has no effect on it; say blocking=True if it does wait"
        if options.timeout is not None:
            yield "its timeout has no effect: nothing ends code on that thread; say blocking=True if it does wait"
    shared = [i.partitions for i in inputs if i.partitions is not None]
    if shared and max(shared) > 1:
        yield f"up to {max(shared)} workers share it: its input has {max(shared)} partitions"
    elif shared:
        yield "one worker at a time runs it: its input has 1 partition (set partitions on the step before it)"


def _ordering(named: Step, options: Options) -> str:
    if named.kind == "process" and options.ordering == "key":
        return "records of one key stay in order, as its state is theirs in turn; others overtake each other"
    if options.ordering == "key":
        return "records of one key stay in order, others overtake each other"
    if options.ordering == "partition":
        return "records of one partition stay in order"
    return "records overtake each other freely"
