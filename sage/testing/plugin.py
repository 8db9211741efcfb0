"""The pytest plugin: the fixtures ``sage_driver`` and ``sage_cassette``, and the option ``--sage-record``."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sage.ports import ChatModel
    from sage.testing.cassettes import CassetteChatModel, Mode
    from sage.testing.driver import TopologyDriver

_MODES = ("none", "once", "all")

_DRIVERS = pytest.StashKey[list["TopologyDriver"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--sage-record``."""
    parser.getgroup("sage").addoption(
        "--sage-record",
        choices=_MODES,
        default="none",
        help="When sage_cassette calls the real model: none (play back only, the default), "
        "once (record what has no file yet), all (record anew).",
    )


@pytest.fixture
def sage_driver(request: pytest.FixtureRequest) -> Iterator[Callable[..., TopologyDriver]]:
    """Makes ``TopologyDriver``s that are closed when the test ends; where it fails, their seeds are in its report."""
    from sage.testing.driver import TopologyDriver

    made: list[TopologyDriver] = []
    with ExitStack() as drivers:

        def make(target: Any, overrides: Any = None, **options: Any) -> TopologyDriver:
            made.append(drivers.enter_context(TopologyDriver(target, overrides, **options)))
            return made[-1]

        request.node.stash[_DRIVERS] = made
        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say the seeds of the drivers of a test that failed."""
    report = yield
    seeds = [driver.seed for driver in item.stash.get(_DRIVERS, []) if driver.seed is not None]
    if report.failed and call.when == "call" and seeds:
        lines = "\n".join(f"TopologyDriver(seed={seed}): the same seed gives the same order again" for seed in seeds)
        report.sections.append(("sage", lines))
    return report


@pytest.fixture
def sage_cassette(request: pytest.FixtureRequest) -> Iterator[Callable[..., CassetteChatModel]]:
    """Makes chat models that play back what ``--sage-record`` recorded.

    ``sage_cassette(model=None, name="")``: ``model`` is the real one, by default what the request names at
    ``OPENAI_BASE_URL``; ``name`` tells several cassettes of one test apart. The file is
    ``cassettes/<test file>/<test>[-<name>].json`` beside the test.
    """
    import asyncio

    from sage.testing.cassettes import CassetteChatModel

    mode: Mode = request.config.getoption("--sage-record") or "none"
    folder = request.path.parent / "cassettes" / request.path.stem
    made: list[CassetteChatModel] = []

    def make(model: ChatModel | None = None, name: str = "") -> CassetteChatModel:
        file = re.sub(r"[^\w.-]+", "-", request.node.name + (f"-{name}" if name else "")).strip("-")
        made.append(CassetteChatModel(folder / f"{file}.json", mode, model))
        return made[-1]

    yield make
    for cassette in made:
        asyncio.run(cassette.close())
