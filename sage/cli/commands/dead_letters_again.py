"""``sage dlq replay`` and ``sage dlq purge``: what becomes of dead letters."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.commands.control import seconds_of
from sage.cli.commands.dead_letters import Filters, TopologyName
from sage.cli.commands.topics import clients_of
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, RATE, BootstrapServers, DataDir, KafkaConfig, Yes
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.operations.replay_choice import ReplayReport

_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130

_LOOK = 0.05
"""Seconds between two looks whether a signal came, where a rate is waited for."""


def replay(
    topology: TopologyName,
    /,
    *,
    only: Filters = None,
    dry_run: Annotated[bool, Parameter(help="Show what would be replayed, by reason; write nothing.")] = False,
    limit: Annotated[
        int | None, Parameter(name=["--max", "-n"], help="At most so many.", validator=AT_LEAST_ONE)
    ] = None,
    rate: Annotated[float | None, Parameter(help="So many a second, at most.", validator=RATE)] = None,
    max_replays: Annotated[
        int, Parameter(help="Letters that were replayed so often already stay.", validator=AT_LEAST_ONE)
    ] = 3,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Give dead letters once more to the step that gave them up, each once; the letters stay where they are.

    Ctrl-C and SIGTERM finish the batch under way. Exits 1 when a chosen letter can't be replayed.
    """
    from sage import app
    from sage.operations import replay as operation
    from sage.operations.letter_filter import LetterFilter
    from sage.operations.replay_choice import Choice

    choice = Choice(LetterFilter.parse(only or ()), limit, max_replays, rate)
    found, shown = app.brokers(bootstrap_servers, data_dir, kafka_config), terminal()
    clients, topics = found.clients(), found.control_topics
    if dry_run:
        report, caught = operation.preview(clients, topology, choice, topics=topics), None
    else:
        with _finishing() as asked:
            report = operation.replay(clients, topology, choice, stop=asked, waiting=shown.note, topics=topics)
        caught = asked.by
    _show(report, choice.max_replays)
    if caught == signal.SIGINT:
        return _EXIT_INTERRUPTED
    return _EXIT_FAILED if report.impossible else 0


def purge(
    topology: TopologyName,
    /,
    *,
    replayed: Annotated[bool, Parameter(help="Only letters that were replayed.")] = False,
    older_than: Annotated[str | None, Parameter(help="Only letters older than this (90s, 12h, 7d).")] = None,
    yes: Yes = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Delete a topology's dead letters, from the oldest on; asks first."""
    from sage.operations import purge as operation

    age = None if older_than is None else seconds_of(older_than, "dlq purge", "--older-than")
    clients, shown = clients_of(bootstrap_servers, data_dir, kafka_config), terminal()
    planned = operation.plan_purge(clients, topology, replayed=replayed, older_than=age)
    letters = f"{planned.letters} dead letter{'' if planned.letters == 1 else 's'}"
    if planned.letters:
        shown.confirm(f"Delete {letters} of {topology} for good?", yes=yes)
        operation.purge(clients, planned)
    if shown.is_structured:
        shown.data({"topology": topology, "deleted": planned.letters})
    else:
        shown.line(f"deleted {letters} of {topology}" if planned.letters else "nothing to delete")


class _Asked:
    """A signal that asked for the end, and which. No Event: a handler may have interrupted whoever holds its lock."""

    def __init__(self) -> None:
        self.by: int | None = None

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler; a second one ends at once."""
        del frame
        if self.by is not None:
            raise KeyboardInterrupt
        self.by = number

    def is_set(self) -> bool:
        """Whether one came."""
        return self.by is not None

    def wait(self, timeout: float) -> bool:
        """Whether one comes within so many seconds."""
        until = time.monotonic() + timeout
        while self.by is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))
        return self.by is not None


@contextmanager
def _finishing() -> Iterator[_Asked]:
    """Have Ctrl-C and SIGTERM ask for the end instead of making it."""
    asked = _Asked()
    before = {number: signal.signal(number, asked.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(report: ReplayReport, max_replays: int) -> None:
    shown = terminal()
    if shown.is_structured:
        shown.data(report.as_dict())
        return
    if report.replayed:
        shown.rows(_counted(report.reasons), (Column("count", right=True), Column("what", "REASON")))
        shown.line()
        shown.rows(_counted(report.topics), (Column("count", right=True), Column("what", "TO")))
    verb = "would be replayed" if report.dry_run else "replayed"
    shown.note(f"{report.replayed} {verb}{'; stopped before the end' if report.interrupted else ''}")
    if report.left_out:
        shown.note(f"{report.left_out} left out by --filter")
    if report.worn_out:
        shown.note(f"{report.worn_out} stay: replayed {max_replays} times already (--max-replays)")
    for reason, count in report.impossible.most_common():
        shown.note(f"{count} can't be replayed: {reason}")


def _counted(counts: Mapping[str, int]) -> list[dict[str, object]]:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"count": count, "what": what} for what, count in ordered]
