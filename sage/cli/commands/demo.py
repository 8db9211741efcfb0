"""``sage demo``: the first five minutes, typed for you."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import COUNT
from sage.cli.terminal import Terminal, terminal
from sage.cli.text import cut, milliseconds, one_line

if TYPE_CHECKING:
    from sage.operations.demo import Typist
    from sage.operations.journey import Journey


def demo(
    what: Annotated[
        Literal["crash"] | None,
        Parameter(name="crash", help="Kill a worker in mid-work, and count what became of every question."),
    ] = None,
    /,
    *,
    folder: Annotated[Path | None, Parameter(help="Where to work; else a fresh temporary folder.")] = None,
    keep_up: Annotated[bool, Parameter(help="Leave the services running afterwards.")] = False,
    questions: Annotated[
        int | None, Parameter(help="With crash: how many are asked; else 40.", validator=COUNT)
    ] = None,
) -> int:
    """Questions, documents and answers over Kafka topics: type the commands of the first five minutes, and run them.

    `sage demo crash` types those of a cluster: two workers, 40 questions, kill -9; it exits 1 when one was lost.
    """
    from sage.operations import crash as crash_script
    from sage.operations import demo as script

    if questions is not None and (what is None or questions < crash_script.FEWEST):
        raise UsageError(f"demo: --questions goes with crash, and is {crash_script.FEWEST} or more")
    shown = terminal()
    began = time.monotonic()
    place = (folder or Path(tempfile.mkdtemp(prefix="sage-demo-"))).absolute()
    place.mkdir(parents=True, exist_ok=True)
    project = place / script.PROJECT
    typist = script.Typist(place, show=lambda line: _typed(shown, line), output=_output(shown))
    if what == "crash":
        from sage.cli.commands.demo_crash import crash

        return crash(typist, place, asked=questions or crash_script.ASKED, keep_up=keep_up)
    typist.environ = _environ(shown)
    try:
        typist.type(script.INIT)
        typist.folder = project
        typist.type(script.UP)
        typist.type(script.INGEST)
        ways = _run(typist, project)
        _show_ways(shown, ways)
    finally:
        if not keep_up and (project / ".sage" / "up.json").exists():
            # Also after a failure and Ctrl-C: nothing of a demo stays behind on the machine.
            typist.type(script.DOWN)
    _show_summary(shown, ways, project, typist, time.monotonic() - began)
    return 0


def _environ(shown: Terminal) -> dict[str, str]:
    """This program's variables; where a key of a service is set, with the model that it shall answer with."""
    from sage import app
    from sage.operations.demo import own_broker

    model = app.preferred_model(os.environ)
    if model.startswith("local/"):
        return own_broker(os.environ)
    _typed(shown, f"export OPENAI_MODEL={model}")
    return {**own_broker(os.environ), "OPENAI_MODEL": model}


def _run(typist: Typist, project: Path) -> list[Journey]:
    """Run the topology while its topics are watched."""
    from sage import app
    from sage.graph.topology import Topology
    from sage.operations.demo import RUN, TOPOLOGY
    from sage.operations.journey import Watch, journeys
    from sage.operations.topologies import check
    from sage.services.service_set import ServiceSet

    environ = typist.environ or os.environ
    topology = app.load_target(str(project / TOPOLOGY), environ=environ)
    frozen = topology if isinstance(topology, Topology) else topology.topology
    compiled = check(frozen, environ, secrets=False)
    topics = list(dict.fromkeys(output.topic for stage in compiled.stages for output in stage.outputs))
    data_dir = project / ".sage"
    broker = ServiceSet(data_dir).find("broker")
    clients = app.brokers(None if broker is None else broker.address, data_dir, None).clients()
    with Watch(clients, topics) as watch:
        typist.type(RUN, render=_readable(terminal()))
    return journeys(watch.sightings, topics)


def _show_ways(shown: Terminal, ways: list[Journey]) -> None:
    if shown.is_structured:
        return
    shown.line()
    shown.line("Where each record went: topic partition:offset, and the time since the topic before")
    for journey in ways:
        shown.line()
        shown.line(f"  {_question(journey.last_value)}")
        for sighting, waited in journey.hops():
            time_text = "" if waited is None else f"+{milliseconds(waited)}"
            shown.line(f"    {sighting!s:<36} {time_text}".rstrip())
    shown.line()


def _show_summary(shown: Terminal, ways: list[Journey], project: Path, typist: Typist, seconds: float) -> None:
    if shown.is_structured:
        shown.data(
            {
                "folder": str(project),
                "seconds": round(seconds, 2),
                "commands": {name: round(one, 2) for name, one in typist.seconds.items()},
                "records": [_way(journey) for journey in ways],
            }
        )
        return
    each = ", ".join(f"{name} {milliseconds(one)}" for name, one in typist.seconds.items())
    shown.line(f"{len(ways)} questions in {milliseconds(seconds)} ({each}).")
    shown.line(f"The project is in {project}; go on there with `sage up`.")


def _way(journey: Journey) -> dict[str, Any]:
    value = journey.last_value if isinstance(journey.last_value, dict) else {"query": journey.last_value}
    return {
        "query": value.get("query"),
        "answer": value.get("answer"),
        "documents": value.get("documents"),
        "path": [
            {
                "topic": sighting.topic,
                "partition": sighting.partition,
                "offset": sighting.offset,
                "ms": None if waited is None else round(waited * 1000, 1),
            }
            for sighting, waited in journey.hops()
        ],
    }


def _question(value: Any) -> str:
    text = value.get("query", "") if isinstance(value, dict) else value
    return cut(one_line(str(text)), 90)


def _typed(shown: Terminal, line: str) -> None:
    text = f"$ {shown.bold(line)}"
    if shown.is_structured:
        shown.note(text)
    else:
        shown.line(text)


def _readable(shown: Terminal) -> Callable[[str], str] | None:
    """In a pipe the topology writes JSON lines for programs; a demo is for people all the same."""
    if shown.is_structured or shown.out.isatty():
        return None
    from sage_connectors.terminal_sink import answer_text

    def readable(line: str) -> str:
        try:
            value = json.loads(line)
        except ValueError:
            return line
        return answer_text(value) if isinstance(value, dict) and {"query", "answer"} <= value.keys() else line

    return readable


def _output(shown: Terminal) -> int | None:
    # With -o json this program's standard output holds one document; the commands then tell people what they do.
    return sys.stderr.fileno() if shown.is_structured else None
