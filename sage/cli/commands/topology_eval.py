"""``sage topology eval``: how near a topology's answers are to those that are expected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.control import seconds_of
from sage.cli.commands.evaluation_report import show
from sage.cli.commands.isolated_runs import Keep, Source, environment_of, removed_after, topology_of
from sage.cli.flags import UsageError
from sage.cli.options import COUNT, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig, writable
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.graph.topology import Topology
    from sage.operations.evaluation.dataset import Dataset
    from sage.operations.evaluation.scoring import Evaluation

_VERB = "topology eval"

NameOrFile = Annotated[
    str, Parameter(name="NAME_OR_FILE", help="A topology file, file.py:attribute, or the name of what is deployed.")
]
Minimum = Annotated[
    list[str] | None,
    Parameter(name="--min", help="METRIC=NUMBER that the mean has to reach, such as f1=0.6; may be repeated."),
]


def evaluate(
    target: NameOrFile,
    /,
    *,
    dataset: Annotated[Path, Parameter(help="Questions, one JSON object a line: query, and expected (or references).")],
    minimum: Minimum = None,
    by: Annotated[
        str | None, Parameter(help="The metric that says which answers are worst; else --min's, or f1.")
    ] = None,
    worst: Annotated[
        int, Parameter(name=["--worst", "-n"], help="So many of the worst answers are shown.", validator=COUNT)
    ] = 5,
    save: Annotated[
        Path | None, Parameter(help="A file for the result, with every answer, as JSON.", validator=writable)
    ] = None,
    compare: Annotated[Path | None, Parameter(help="A saved result: show what became worse since, first.")] = None,
    source: Source = None,
    as_text: Annotated[
        bool, Parameter(help="Give the questions as texts, as a file of lines does, not as whole objects.")
    ] = False,
    timeout: Annotated[str | None, Parameter(help="Give up after this long (30, 500ms, 2m) and exit 5.")] = None,
    keep: Keep = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Run a data set of questions through a topology and measure its answers by F1, exact match, ROUGE-L and BLEU.

    It runs here, under a name of its own: what is deployed, its topics and its groups are left alone, its source and
    its sinks are bypassed, and collections are only read. A question without an answer counts as 0. Exits 1 when a
    --min was not reached, 5 when the time was over.
    """
    from sage.operations.evaluation.dataset import read_dataset
    from sage.operations.evaluation.saved import load
    from sage.operations.evaluation.saved import save as write

    goals = _goals(minimum)
    limit = None if timeout is None else seconds_of(timeout, _VERB)
    before = None if compare is None else load(compare)
    examples = read_dataset(dataset)
    found, version = _found(target, bootstrap_servers, kafka_config, data_dir)
    _refuse_unknown(topology_of(found), [*goals, *((by,) if by else ())])
    result = _run(
        found, version, examples, source=source, as_text=as_text, limit=limit, keep=keep,
        bootstrap_servers=bootstrap_servers, kafka_config=kafka_config, data_dir=data_dir,
    )  # fmt: skip
    if save is not None:
        write(save, result)
    show(result, by or next(iter(goals), "f1"), worst, before)
    return _verdict(result, goals)


def _goals(texts: Sequence[str] | None) -> Mapping[str, float]:
    from sage.operations.evaluation.goals import parse_goals

    try:
        return parse_goals(texts or ())
    except ValueError as error:
        raise UsageError(f"{_VERB}: --min: {error}") from error


def _refuse_unknown(topology: Topology, names: Sequence[str]) -> None:
    from sage.operations.evaluation.goals import refuse_unknown

    refuse_unknown(topology, names)


def _found(
    target: str, bootstrap_servers: str | None, kafka_config: Path | None, data_dir: Path
) -> tuple[Topology | LocalEnvironment, int]:
    """What the word names, and its version where it is deployed."""
    from sage import app
    from sage.operations.deployed import deployed_topology, is_target

    if is_target(target):
        return app.load_target(target, environ=os.environ), 0
    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    return deployed_topology(found.clients(), found.control_topics, target)


def _run(
    found: Topology | LocalEnvironment, version: int, examples: Dataset, *, source: str | None, as_text: bool,
    limit: float | None, keep: bool, **places: Any,
) -> Evaluation:  # fmt: skip
    from sage.operations.evaluation.running import evaluate as run_all
    from sage.operations.isolation import isolated, run_name

    shown = terminal()
    topology = topology_of(found)
    # What is measured are the answers: a transaction around them would only keep a second run of the folder waiting.
    run = isolated(topology, run_name(topology.name, "eval"), source=source, guarantee="at_least_once")
    with (
        environment_of(found, run, **places) as environment,
        removed_after(environment, run.name, places["data_dir"], keep=keep),
    ):
        shown.progress(f"{topology.name}: {len(examples.examples)} questions")
        return run_all(
            environment, run, examples, topology=topology.name, version=version, as_text=as_text, timeout=limit,
            progress=lambda done, total: shown.bar("questions", done, total),
        )  # fmt: skip


def _verdict(result: Evaluation, goals: Mapping[str, float]) -> int:
    from sage.operations.evaluation.goals import missed, shortfalls

    reasons = shortfalls(result, goals)
    if reasons:
        raise missed(result, reasons)
    return 0
