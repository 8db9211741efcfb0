"""The YAML reader: a file becomes the same frozen Topology that the fluent API gives.

Every problem in a file is found in one reading, each with file, line, column, path and the nearest valid
name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, cast, get_args

from pydantic import BaseModel

from sage.errors import InvalidTopology, MissingVariable, NotFound, SageError
from sage.graph.topology import Step, TopicSettings, Topology
from sage.graph.validate import ordered, problems_of
from sage.graph.yaml.document import Document, Path, read_document
from sage.graph.yaml.steps import StepReader
from sage.model.names import check_name
from sage.spec.config import normalise, secrets_of, unset_message
from sage.spec.options import Guarantee, Options
from sage.spec.registry import Registry
from sage.spec.settings import MemoryConfig, TopicsConfig, check_kafka, check_options
from sage.spec.shape import is_component
from sage.spec.suggest import hint
from sage.spec.variables import UnsetVariable, resolve

TOP_LEVEL = ("version", "name", "guarantee", "defaults", "topics", "memory", "kafka", "moved", "steps")
VERSION = 1


def read_topology(
    path: str | FilePath, *, environ: Mapping[str, str] | None = None, registry: Registry | None = None
) -> Topology:
    """The topology in a YAML file. Code that it refers to is looked for in its folder first.

    Args:
        path: the file; shown in messages as it is given here.
        environ: the variables of ``${VAR}``; this process's environment unless given.
        registry: where registered names come from; the installed components unless given.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it is not a topology that can run; ``problems`` holds everything that is wrong.
        MissingVariable: that one variable is not set and has no default.
    """
    file = FilePath(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise InvalidTopology(
            f"is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}", where=str(path)
        ) from error
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    folder = file.resolve().parent
    return parse_topology(text, file=str(path), folder=folder, environ=environ, registry=registry)


def parse_topology(
    text: str,
    *,
    file: str = "topology.yaml",
    folder: FilePath | None = None,
    environ: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Topology:
    """The topology in a YAML text; ``file`` names it in messages, ``folder`` holds its code.

    Raises:
        InvalidTopology, MissingVariable: as ``read_topology``.
    """
    document, problems = read_document(text, file)
    reading = _Reading(document, environ, registry or Registry.installed(), folder)
    topology = reading.topology()
    problems += reading.problems
    if topology is None or problems:
        raise InvalidTopology.of(_in_order(problems, file))
    return topology


def missing_secrets(
    topology: Topology, environ: Mapping[str, str] | None = None, *, worker: str | None = None
) -> list[MissingVariable]:
    """The secrets that the topology's components and memory want and this process doesn't have.

    For a process that is going to run the steps; ``deploy`` doesn't ask, since workers have their own.
    """
    variables = os.environ if environ is None else environ
    found: list[MissingVariable] = []
    places: list[tuple[type[BaseModel], Mapping[str, Any], Step | None]] = [(MemoryConfig, topology.memory, None)]
    places += [(step.target.Config, step.config, step) for step in topology.steps if is_component(step.target)]
    for model, config, step in places:
        for path, field, text in secrets_of(model, config):
            try:
                resolve(text, variables)
            except UnsetVariable as unset:
                option = ".".join(map(str, path))
                where = f"memory.{option}" if step is None else step.where_of(f"config.{option}")
                found.append(MissingVariable(unset_message(unset.name, field, worker), where=where))
            except ValueError:  # a literal that looks like a variable is a secret like another
                continue
    return found


class _Reading:
    """One reading of a document."""

    def __init__(
        self, document: Document, environ: Mapping[str, str] | None, registry: Registry, folder: FilePath | None
    ) -> None:
        self.document = document
        self.problems: list[SageError] = []
        self._environ = environ
        self._steps = StepReader(document, registry, folder, environ)

    def topology(self) -> Topology | None:
        """The topology as far as it can be made; ``None`` where the text isn't a mapping."""
        data = self.document.data
        if not isinstance(data, Mapping):
            found = "is empty" if data is None else f"must be a mapping; found {str(data)[:40]!r}"
            self._problem((), f"{found}. A topology begins with version: 1")
            return None
        for key in data:
            if key not in TOP_LEVEL:
                self._problem((key,), f"unknown option; {hint(key, TOP_LEVEL, what='options')}")
        if data.get("version", VERSION) != VERSION or isinstance(data.get("version"), bool):
            self._problem(("version",), f"this version of SAGE reads version: 1; found {data['version']!r}")
        name = self._name(data)
        topology = Topology(
            name=name,
            steps=self._read_steps(data),
            guarantee=self._guarantee(data),
            defaults=self._defaults(data),
            topics=TopicSettings(**self._settings(TopicsConfig, "topics", data)),
            memory=self._settings(MemoryConfig, "memory", data),
            kafka=self._kafka(data),
            moved=self._moved(data),
        )
        return self._checked(topology)

    def _checked(self, topology: Topology) -> Topology:
        if not self._steps.graph_unknown and topology.steps:
            told = {str(problem) for problem in self.problems}
            # A missing name is told already; the steps are judged under any other.
            named = replace(topology, name=topology.name or "topology")
            graph = [problem for problem in problems_of(named) if str(problem) not in told]
            self.problems += [self._placed(problem) for problem in graph]
        if self.problems:
            return topology
        return replace(topology, steps=ordered(topology.steps))

    def _placed(self, problem: SageError) -> SageError:
        """A problem of the topology as a whole, with its place in the file."""
        where = problem.where or ""
        if where.startswith(("moved.", "kafka.")):
            key, _, rest = where.partition(".")
            problem.where = str(self.document.origin((key, rest)))
        return problem

    def _name(self, data: Mapping[str, Any]) -> str:
        name = data.get("name")
        if not isinstance(name, str) or not name:
            found = "is missing" if name is None else f"must be a text; found {name!r}"
            self._problem(("name",), f"{found}; write name: my-topology")
            return ""
        try:
            return check_name(name, what="topology", where=str(self.document.origin(("name",))))
        except InvalidTopology as error:
            self.problems.append(error)
            return ""

    def _guarantee(self, data: Mapping[str, Any]) -> Guarantee:
        given = data.get("guarantee", "at_least_once")
        choices = get_args(Guarantee)
        if given not in choices:
            self._problem(("guarantee",), f"must be one of {', '.join(choices)}; found {given!r}")
            return "at_least_once"
        return cast(Guarantee, given)

    def _defaults(self, data: Mapping[str, Any]) -> Options:
        given = self._mapping("defaults", data)
        _, options, problems = check_options(given, environ=self._environ)
        self.problems += [p.error(str(self.document.origin(("defaults", *p.path)))) for p in problems]
        return options

    def _settings(self, model: type[BaseModel], key: str, data: Mapping[str, Any]) -> dict[str, Any]:
        found, problems = normalise(model, self._mapping(key, data), environ=self._environ)
        self.problems += [p.error(str(self.document.origin((key, *p.path)))) for p in problems]
        return found

    def _kafka(self, data: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(self._mapping("kafka", data))
        problems = check_kafka(given)
        self.problems += [p.error(str(self.document.origin(("kafka", *p.path)))) for p in problems]
        return {} if problems else given

    def _moved(self, data: Mapping[str, Any]) -> dict[str, str]:
        given = self._mapping("moved", data)
        found = {old: new for old, new in given.items() if isinstance(new, str)}
        for old, new in given.items():
            if old not in found:
                self._problem(("moved", old), f"must be a step's name; found {new!r}")
        return found

    def _mapping(self, key: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        given = data.get(key)
        if given is None or isinstance(given, Mapping):
            return given or {}
        self._problem((key,), f"must be a mapping; found {given!r}")
        return {}

    def _read_steps(self, data: Mapping[str, Any]) -> tuple[Step, ...]:
        given = self._mapping("steps", data)
        if not given and not isinstance(data.get("steps"), str | list | int):
            self._problem(("steps",), "has no steps; start with a source")
        read = [self._steps.read(name, body) for name, body in given.items()]
        self.problems += self._steps.problems
        return tuple(step for step in read if step is not None)

    def _problem(self, path: Path, what: str) -> None:
        self.problems.append(InvalidTopology(what, where=str(self.document.origin(path))))


def _in_order(problems: list[SageError], file: str) -> list[SageError]:
    """Problems by line and column, as a reader goes through the file."""

    def place(problem: SageError) -> tuple[int, int]:
        parts = (problem.where or "").removeprefix(file).split(" ")[0].split(":")
        is_known = len(parts) > 2 and parts[1].isdecimal() and parts[2].isdecimal()
        return (int(parts[1]), int(parts[2])) if is_known else (0, 0)

    return sorted(problems, key=place)
