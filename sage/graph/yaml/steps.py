"""One entry of ``steps:`` as a Step; what is wrong with it is collected, and the rest is read on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from sage.errors import InvalidTopology, NotInThisVersion, SageError
from sage.graph.targets import predicate_problem, target_problem
from sage.graph.topology import Input, KeyedSettings, Step, StepKind
from sage.graph.yaml.document import Document, Path
from sage.graph.yaml.keyed import read_keyed
from sage.spec.config import ConfigProblem, normalise, normalise_config
from sage.spec.fields import fields_of
from sage.spec.options import Options
from sage.spec.reference import is_reference, reference_of, resolve_reference
from sage.spec.registry import ComponentKind, Registry
from sage.spec.settings import TopicSinkConfig, TopicSourceConfig, check_options
from sage.spec.shape import is_component
from sage.spec.suggest import hint

KINDS: tuple[StepKind, ...] = (
    "source", "operator", "map", "flatmap", "filter", "map_batches",
    "process", "key_by", "route", "window", "join", "union", "sink",
)  # fmt: skip
"""The kind keys; each step has exactly one."""

LATER = frozenset({"window", "join"})
"""Kinds that are documented and not in this version."""

_OWN_KEYS: dict[str, tuple[str, ...]] = {
    "route": ("default",), "process": ("state", "ttl", "on_timer"), "union": ("max_hops",),
}  # fmt: skip
"""Keys that only steps of one kind have."""

_GATEWAY = {("source", "chat"), ("sink", "reply")}
_OPTIONS = tuple(dict.fromkeys(spelling for field in fields_of(Options).values() for spelling in field.spellings))


class StepReader:
    """Reads the steps of one document."""

    def __init__(
        self, document: Document, registry: Registry, folder: FilePath | None, environ: Mapping[str, str] | None
    ) -> None:
        self._document = document
        self._registry = registry
        self._folder = folder
        self._environ = environ
        self.problems: list[SageError] = []
        self.graph_unknown = False
        """Whether what a step reads could not be understood, so that the graph can't be judged."""

    def read(self, name: str, body: Any) -> Step | None:
        """The step ``name``; ``None`` if there is nothing to make one of."""
        path: Path = ("steps", name)
        if not isinstance(body, Mapping):
            self.problem(path, f"must be a mapping with one of {', '.join(KINDS)}; found {body!r}")
            self.graph_unknown = True
            return None
        kind = self._kind(path, body)
        if kind in LATER:
            self._later(path, kind)
            return None
        options = self._options(path, body, kind)
        target, reference = self._target(path, kind, body)
        branches = self._branches(path, body["route"]) if kind == "route" and "route" in body else {}
        default = body.get("default", "other") if kind == "route" else None
        if default is not None and not isinstance(default, str):
            self.problem((*path, "default"), f"must be a branch's name; found {default!r}")
            default = None
        keyed = read_keyed(path, body, target, self) if kind == "process" else KeyedSettings()
        return Step(
            name=name,
            kind=_used_as(kind, target),
            target=target,
            reference=reference,
            config=self._config(path, kind, target, body),
            options=options,
            inputs=self._inputs(path, kind, body),
            branches=branches,
            default_branch=default,
            state=keyed.state,
            state_reference=reference_of(keyed.state) if keyed.state is not None else "",
            ttl=keyed.ttl,
            on_timer=keyed.on_timer,
            max_hops=self._max_hops(path, body) if kind == "union" else None,
            origin=self._document.origin(path),
            places={
                ".".join(map(str, found[2:])): self._document.origin(found)
                for found in self._document.places
                if len(found) > 2 and found[:2] == path
            },
        )

    def _kind(self, path: Path, body: Mapping[str, Any]) -> StepKind:
        kinds: list[StepKind] = [kind for kind in KINDS if kind in body]
        if len(kinds) > 1:
            self.problem(path, f"has {len(kinds)} kinds, {' and '.join(kinds)}; keep one")
        if kinds:
            return kinds[0]
        if not any(hint(key, KINDS).startswith("did") for key in body if key not in self._allowed("route")):
            self.problem(path, f"has no kind; write one of {', '.join(KINDS)}")
        # A mistyped kind is told as an unknown key; what the step reads is judged all the same.
        return "operator" if "from" in body else "source"

    def _later(self, path: Path, kind: StepKind) -> None:
        error = NotInThisVersion(f"{kind} is not in this version", where=str(self._document.origin((*path, kind))))
        self.problems.append(error)
        self.graph_unknown = True

    def _allowed(self, kind: StepKind) -> tuple[str, ...]:
        return (*KINDS, "from", "config", *_OWN_KEYS.get(kind, ()), *_OPTIONS)

    def _options(self, path: Path, body: Mapping[str, Any], kind: StepKind) -> Options:
        for key in body:
            if key not in self._allowed(kind):
                self.problem((*path, key), f"unknown option; {hint(key, self._allowed(kind), what='options')}")
        given = {key: value for key, value in body.items() if key in _OPTIONS}
        _, options, problems = check_options(given, environ=self._environ)
        self._add(path, problems)
        return options

    # ----------------------------------------------------------------------------- what it does

    def _target(self, path: Path, kind: StepKind, body: Mapping[str, Any]) -> tuple[Any, str]:
        value = body.get(kind)
        here = (*path, kind)
        if kind in {"union", "route"} or kind not in body:
            return None, ""
        if not isinstance(value, str) or not value:
            self.problem(here, f"must be a registered name or package.module:function; found {value!r}")
            return None, ""
        if kind in {"source", "sink"} and value == "topic":
            return "topic", ""
        if kind == "key_by" and not is_reference(value):
            return value, ""
        if (kind, value) in _GATEWAY:
            self.problems.append(
                NotInThisVersion(f"{kind}: {value} (the gateway) is not in this version", where=self._where(here))
            )
            return None, ""
        target = self._load(here, kind, value)
        problem = None if target is None else target_problem(kind, target)
        if problem is not None:
            self.problem(here, problem)
            return None, ""
        return target, self._registry.name_of(target) if is_component(target) else reference_of(target) or value

    def _load(self, path: Path, kind: StepKind, text: str) -> Any:
        component: ComponentKind = "source" if kind == "source" else "sink" if kind == "sink" else "operator"
        try:
            if kind in {"key_by", "map_batches"} and is_reference(text):
                return resolve_reference(text, folder=self._folder)
            return self._registry.load(component, text, folder=self._folder)
        except InvalidTopology as error:
            self.problems.append(error.at(self._where(path)))
            return None

    def _max_hops(self, path: Path, body: Mapping[str, Any]) -> int | None:
        hops = body.get("max_hops")
        if hops is not None and (not isinstance(hops, int) or isinstance(hops, bool) or hops < 1):
            self.problem((*path, "max_hops"), f"must be a number of at least 1; found {hops!r}")
            return None
        return hops

    def load_reference(self, path: Path, text: Any) -> Any:
        """The code that ``package.module:name`` names; ``None``, and a problem, where it names none."""
        if not isinstance(text, str) or not is_reference(text):
            self.problem(path, f"must be package.module:name; found {text!r}")
            return None
        try:
            return resolve_reference(text, folder=self._folder)
        except InvalidTopology as error:
            self.problems.append(error.at(self._where(path)))
            return None

    def _branches(self, path: Path, given: Any) -> dict[str, Any]:
        here = (*path, "route")
        if not isinstance(given, Mapping) or not given:
            self.problem(here, f"must be a mapping of branches to predicates; found {given!r}")
            return {}
        found: dict[str, Any] = {}
        for branch, text in given.items():
            if not isinstance(text, str):
                self.problem((*here, branch), f"must be package.module:function; found {text!r}")
            elif not is_reference(text):
                found[branch] = text
            else:
                found[branch] = self._predicate((*here, branch), text)
        return found

    def _predicate(self, path: Path, text: str) -> Any:
        try:
            predicate = resolve_reference(text, folder=self._folder)
        except InvalidTopology as error:
            self.problems.append(error.at(self._where(path)))
            return None
        problem = predicate_problem(predicate)
        if problem is not None:
            self.problem(path, problem)
        return predicate

    def _config(self, path: Path, kind: StepKind, target: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        here = (*path, "config")
        given = body.get("config")
        if given is not None and not isinstance(given, Mapping):
            self.problem(here, f"must be a mapping of options; found {given!r}")
            return {}
        if is_component(target):
            found, problems = normalise_config(target, given, environ=self._environ)
        elif target == "topic" and kind in {"source", "sink"}:
            model = TopicSourceConfig if kind == "source" else TopicSinkConfig
            found, problems = normalise(model, given, environ=self._environ)
            if kind == "source" and not problems:
                found.setdefault("format", "json")
        else:
            if given and (target is not None or kind in {"union", "route"}):
                self.problem(here, "only components have a configuration; write an Operator with a Config")
            return {}
        self._add(here, problems)
        return found

    # ----------------------------------------------------------------------------- what it reads

    def _inputs(self, path: Path, kind: StepKind, body: Mapping[str, Any]) -> tuple[Input, ...]:
        key, given = "from", body.get("from")
        if kind == "union" and isinstance(body.get("union"), list):
            if given is not None:
                self.problem((*path, "from"), "a union with a list takes no from; keep one")
            key, given = "union", body["union"]
        elif kind == "union" and body.get("union") not in (None, True, {}, ""):
            self.problem((*path, "union"), f"must be a list of steps; found {body['union']!r}")
            self.graph_unknown = True
            return ()
        if given is None:
            return ()
        texts = given if isinstance(given, list) else [given]
        found = [self._one_input((*path, key), text) for text in texts]
        return tuple(one for one in found if one is not None)

    def _one_input(self, path: Path, text: Any) -> Input | None:
        step, dot, branch = text.partition(".") if isinstance(text, str) else ("", "", "")
        if not step or (dot and not branch) or "." in branch:
            self.problem(path, f"must be a step, step.branch, or a list of them; found {text!r}")
            self.graph_unknown = True
            return None
        return Input(step, branch or None)

    # ----------------------------------------------------------------------------------- problems

    def _where(self, path: Path) -> str:
        return str(self._document.origin(path))

    def problem(self, path: Path, what: str) -> None:
        """Note what is wrong, and where."""
        self.problems.append(InvalidTopology(what, where=self._where(path)))

    def _add(self, path: Path, problems: list[ConfigProblem]) -> None:
        self.problems += [problem.error(self._where((*path, *problem.path))) for problem in problems]


def _used_as(kind: StepKind, target: Any) -> StepKind:
    """``map`` and ``operator`` say the same of a step; which of them it is depends on its target."""
    if kind in {"map", "operator"} and target is not None:
        return "operator" if is_component(target) else "map"
    return kind
