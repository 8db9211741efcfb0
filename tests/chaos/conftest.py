"""Scenarios for tests: started on the brokers of the session, and ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from tests.chaos.scenario import Scenario
from tests.support.brokers import ApacheBroker


class Start(Protocol):
    """Starts a scenario that is fed, and closed when the test ends."""

    def __call__(self, kind: str, guarantee: str, seed: int, *, workers: int = 2, records: int = 600) -> Scenario: ...


@pytest.fixture
def start(apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Start]:
    """Scenarios on one node."""
    started: list[Scenario] = []

    def begin(kind: str, guarantee: str, seed: int, *, workers: int = 2, records: int = 600) -> Scenario:
        made = Scenario(
            apache_kafka, unique("chaos"), kind, guarantee, tmp_path, seed, workers=workers, records=records
        )
        started.append(made)
        made.feed()
        return made

    yield begin
    for scenario in started:
        scenario.close()


def together(strike: Callable[[Scenario], None], scenarios: Sequence[Scenario]) -> None:
    """Do this to all of them at the same time, and tell every failure."""
    with ThreadPoolExecutor(len(scenarios)) as pool:
        outcomes = [(scenario, pool.submit(strike, scenario)) for scenario in scenarios]
    failures = [f"{scenario}: {error}" for scenario, done in outcomes if (error := done.exception()) is not None]
    assert not failures, "\n\n".join(failures)
