"""``sage demo crash``: a worker is killed in mid-work, and what became of every question is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage.cli.terminal import Terminal, terminal
from sage.cli.text import milliseconds

if TYPE_CHECKING:
    from sage.operations.crash import Scene, Tally
    from sage.operations.demo import Typist
    from sage.spec.options import Guarantee

_WORKER_ENDS = 40.0
_EXIT_LOST = 1

MODEL_LOG = Path(".sage", "logs", "model.log")


def crash(typist: Typist, place: Path, *, asked: int, keep_up: bool) -> int:
    """Type the commands of the crash; exits 1 when a question was lost.

    Apache Kafka is started for it where this machine can: there the other worker takes over. The embedded broker never
    gives a dead worker's partitions to another, so there it is started again.
    """
    from sage import app
    from sage.operations import crash as script
    from sage.operations import demo

    shown = terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else the workers would stay behind
    project = place / demo.PROJECT
    # The local model alone: its server's log is what calls are counted by.
    own = {name: value for name, value in demo.own_broker(os.environ).items() if not name.startswith("OPENAI_")}
    typist.environ = own
    shown.progress("starting Apache Kafka, where it is to be had")
    with app.apache_kafka(_kept(place) if keep_up else None) as kafka:
        address = None if kafka is None else kafka.bootstrap_servers
        workers: dict[str, subprocess.Popen[bytes]] = {}
        try:
            typist.type(demo.INIT)
            typist.folder = project
            if address is not None:
                typist.show(f"export {app.BOOTSTRAP_VARIABLE}={address}")
                typist.environ = own = {**own, app.BOOTSTRAP_VARIABLE: address}
            tally = _type(typist, project, workers, own, address, asked)
            _show(shown, tally, project)
            for count in script.COUNTED:
                _say(shown, str(typist.count(demo.Step(count, after=" | wc -l"))))
            for check in script.CHECKS:
                typist.type(demo.Step(check))
        finally:
            _end(workers)
            if not keep_up and (project / ".sage" / "up.json").exists():
                typist.type(demo.DOWN)
    if keep_up:
        _show_kept(shown, project, address, kafka.process_ids if kafka is not None else [])
    else:
        shown.note("the brokers are stopped; to count in them yourself, leave them running: sage demo crash --keep-up")
    return _EXIT_LOST if tally.lost else 0


def _kept(place: Path) -> Path:
    """A fresh folder for brokers that stay."""
    return Path(tempfile.mkdtemp(prefix="kafka-", dir=place))


def _type(
    typist: Typist,
    project: Path,
    workers: dict[str, subprocess.Popen[bytes]],
    environ: dict[str, str],
    address: str | None,
    asked: int,
) -> Tally:
    from sage import app
    from sage.operations import crash as script
    from sage.operations import demo

    services = ("up", "--model", script.MODEL, *(() if address is None else ("--only", "memory,model")))
    typist.type(demo.Step(services))
    typist.type(demo.INGEST)
    starter = (project / demo.TOPOLOGY).read_text(encoding="utf-8")
    # The embedded broker doesn't fence two workers from each other: exactly-once is for one there.
    guarantee: Guarantee = "at_least_once" if address is None else "exactly_once"
    (project / script.TOPOLOGY).write_text(script.topology_text(starter, guarantee), encoding="utf-8")
    typist.type(demo.Step(("topics", "create", script.QUESTIONS, "-p", str(script.PARTITIONS))))

    def start(name: str) -> None:
        typist.show(f"sage worker run --id {name} > {name}.log &")
        workers[name] = script.start_worker(name, project, environ)

    start(script.FIRST)
    start(script.SECOND)
    typist.type(demo.Step(("topology", "deploy", script.TOPOLOGY, "--wait", "--timeout", "3m")))
    scene = app.crash_scene(project / script.TOPOLOGY, project / ".sage", address, project / MODEL_LOG)
    try:
        questions = script.questions_of((project / "golden.jsonl").read_text(encoding="utf-8"), asked)
        return _play(terminal(), scene, questions, workers, None if address is not None else start)
    finally:
        scene.close()


def _play(
    shown: Terminal,
    scene: Scene,
    questions: list[str],
    workers: dict[str, subprocess.Popen[bytes]],
    start: Callable[[str], None] | None,
) -> Tally:
    """Feed, kill, wait, count; ``start`` starts the dead worker again where no other can take over."""
    from sage.operations import crash as script

    def progress(count: int) -> None:
        shown.bar("answers", count, len(questions))

    _say(shown, f"feeding {len(questions)} questions ...")
    scene.ask(questions)
    scene.wait_for_answers(script.kill_at(len(questions)), progress)
    owned = scene.owned_by(script.FIRST)
    process = workers.pop(script.FIRST)
    process.kill()
    process.wait()
    scene.killed(owned)
    _say(shown, f"kill -9 {script.FIRST} at {scene.at_kill} answers ...")
    if start is not None:
        start(script.FIRST)
    seconds = scene.wait_for_takeover(shown.progress)
    if start is None:
        _say(shown, f"{script.SECOND} took over after {milliseconds(seconds)}")
    else:
        _say(shown, f"{script.FIRST} went on after {milliseconds(seconds)} (on Apache Kafka the other takes over)")
    scene.wait_for_the_end(progress)
    return scene.tally()


def _end(workers: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in workers.values():
        process.terminate()
    for process in workers.values():
        try:
            process.wait(_WORKER_ENDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _say(shown: Terminal, line: str) -> None:
    if shown.is_structured:
        shown.note(line)
    else:
        shown.line(line)


def _show(shown: Terminal, tally: Tally, project: Path) -> None:
    if shown.is_structured:
        shown.data({"folder": str(project), **tally.as_dict()})
        return
    shown.line(str(tally))
    shown.line(f"the model server's own count, in {project}: grep -c 'call [0-9]* started' {MODEL_LOG}; Kafka's:")


def _show_kept(shown: Terminal, project: Path, address: str | None, processes: Sequence[int]) -> None:
    """How to count in Kafka what was counted above, and how to stop what was left running."""
    from sage import app
    from sage.operations import crash as script

    _say(shown, f"all runs on; in {project}:")
    if address is not None:
        _say(shown, f"  export {app.BOOTSTRAP_VARIABLE}={address}")
    for count in script.COUNTED:
        _say(shown, f"  sage {' '.join(count)} | wc -l")
    for check in script.CHECKS:
        _say(shown, f"  sage {' '.join(check)}")
    stop = "".join(f" && kill {process}" for process in processes)
    _say(shown, f"To stop it all: sage down{stop}")
