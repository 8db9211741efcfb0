"""Validation of a component's configuration: every problem at once, secrets left unresolved.

Configuration arrives as plain values, as YAML or a ``dict`` has them. ``${VAR}`` is replaced by the
variable's value, except in secret fields (``SecretStr``, or ``json_schema_extra={"secret": True}``): those
keep the reference until a component is made on the worker that runs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from sage.errors import InvalidTopology, MissingVariable, SageError
from sage.model.secrets import remember_secret, without_userinfo
from sage.spec.component import Component
from sage.spec.fields import ModelField, fields_of, nested
from sage.spec.shape import making
from sage.spec.suggest import hint, nearest
from sage.spec.variables import UnsetVariable, resolve

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong with a configuration; ``path`` leads to it, ``missing`` names an unset variable."""

    path: Path
    message: str
    missing: str | None = None

    def error(self, where: str | None) -> SageError:
        """The problem as the error of its kind, at that place."""
        kind = InvalidTopology if self.missing is None else MissingVariable
        return kind(self.message, where=where)


def normalise_config(
    component: type[Component],
    config: Mapping[str, Any] | BaseModel | None,
    *,
    environ: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[ConfigProblem]]:
    """A component's options as plain JSON under their proper names, and what is wrong with them."""
    if not (isinstance(component.Config, type) and issubclass(component.Config, BaseModel)):
        return {}, [ConfigProblem((), f"{component.__name__}.Config must be a pydantic BaseModel")]
    return normalise(component.Config, config, environ=environ)


def normalise(
    model: type[BaseModel], config: Mapping[str, Any] | BaseModel | None, *, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[ConfigProblem]]:
    """The same for any pydantic model of settings."""
    if isinstance(config, BaseModel):
        if not isinstance(config, model):
            return {}, [ConfigProblem((), f"is a {type(config).__name__}, not a {model.__qualname__}")]
        given: Any = {name: getattr(config, name) for name in config.model_fields_set}
        resolved, problems = {name: _plain(value) for name, value in given.items()}, list[ConfigProblem]()
    elif config is None or isinstance(config, Mapping):
        resolved, problems = _Reading(os.environ if environ is None else environ).read(model, config or {})
    else:
        return {}, [ConfigProblem((), f"must be a mapping of options; found {config!r}")]
    made: BaseModel | None = None
    try:
        made = model.model_validate(resolved, by_alias=True, by_name=True)
    except ValidationError as error:
        known = {problem.path for problem in problems}
        for details in error.errors(include_url=False):
            found = _problem(model, resolved, details)
            if not any(found.path[: len(path)] == path for path in known):
                problems.append(found)
    if problems or made is None:
        return {}, problems
    try:
        plain = made.model_dump(mode="json", exclude_unset=True, warnings=False)
    except PydanticSerializationError as error:
        return {}, [ConfigProblem((), f"can't be written as JSON, which options must be: {error}")]
    return _with_secrets(model, resolved, plain), []


def make_component(
    target: type[Component],
    config: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    where: str | None = None,
    places: Mapping[str, object] | None = None,
    worker: str | None = None,
) -> Component:
    """A component from its normalised configuration, with its secrets resolved.

    Args:
        target: the class.
        config: as ``normalise_config`` gives it.
        environ: where variables are looked up; this process's environment unless given.
        where, places: the step's place, and the places of its parts, for messages.
        worker: the worker's name, where that isn't the user's own process.

    Raises:
        MissingVariable: a secret's variable is not set here.
        InvalidTopology: the configuration is not valid.
        SageError: the class can't be made.
    """
    known = places or {}

    def place(path: Path) -> str | None:
        found = known.get(".".join(["config", *map(str, path)]))
        return str(found) if found is not None else where

    values = reveal(target.Config, config, environ=environ, place=place, worker=worker)
    try:
        made = target.Config.model_validate(values, by_alias=True, by_name=True)
    except ValidationError as error:
        first = _problem(target.Config, values, error.errors(include_url=False)[0])
        option = ".".join(map(str, first.path))
        raise InvalidTopology(f"config.{option}: {first.message}", where=where) from error
    with making(target, where=where, hint="write __init__(self, config) and pass it to super().__init__, or open()"):
        return target(made)


def reveal(
    model: type[BaseModel],
    config: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    place: Callable[[Path], str | None] = lambda path: None,
    worker: str | None = None,
) -> dict[str, Any]:
    """A normalised configuration with the references in its secret fields resolved; for the one who uses it.

    Args:
        model, config: the model and what ``normalise`` gave for it.
        environ: where variables are looked up; this process's environment unless given.
        place: where a field was written, for messages.
        worker: the worker's name, where that isn't the user's own process.

    Raises:
        MissingVariable: a secret's variable is not set here.
    """
    variables = os.environ if environ is None else environ
    found: dict[str, Any] = dict(config)
    for path, field, text in secrets_of(model, config):
        try:
            secret = resolve(text, variables)
        except UnsetVariable as unset:
            raise MissingVariable(unset_message(unset.name, field, worker), where=place(path)) from unset
        except ValueError:  # a secret written out that only looks like a variable
            remember_secret(text)
            continue
        remember_secret(secret)
        found = _replaced_at(found, path, secret)
    return found


def unset_message(variable: str, field: ModelField | None = None, worker: str | None = None) -> str:
    """What is told of a variable that isn't set."""
    place, verb = (f" (on worker {worker})", "Set it there") if worker else ("", "Set it")
    if field is not None and field.instead:
        return f"{variable} is not set{place}. {verb}, or {field.instead}."
    if field is not None and field.secret:
        return f"{variable} is not set{place}. {verb}."
    return f"{variable} is not set{place}. {verb}, or write ${{{variable}:-default}}."


def secrets_of(
    model: type[BaseModel], config: Mapping[str, Any], path: Path = ()
) -> Iterator[tuple[Path, ModelField, str]]:
    """Every text in a secret field of a normalised configuration: its path, its field, and the text."""
    for name, field in fields_of(model).items():
        if name not in config:
            continue
        if field.secret:
            for place, text in _texts(config[name], (*path, name)):
                yield place, field, text
        else:
            for key, submodel, value in nested(field, config[name]):
                yield from secrets_of(submodel, value, (*path, name, *key))


class _Reading:
    """One pass over given options: names checked, aliases replaced, variables resolved."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[ConfigProblem] = []

    def read(self, model: type[BaseModel], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[ConfigProblem]]:
        return self._model(model, given, ()), self.problems

    def _model(self, model: type[BaseModel], given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        fields = fields_of(model)
        by_spelling = {spelling: field for field in fields.values() for spelling in field.spellings}
        found: dict[str, Any] = {}
        for key, value in given.items():
            here = (*path, key)
            field = by_spelling.get(key)
            if field is None:
                if model.model_config.get("extra") == "allow" and isinstance(key, str):
                    found[key] = self._resolved(value, here)
                else:
                    self.problems.append(ConfigProblem(here, f"unknown option; {_option_hint(str(key), by_spelling)}"))
            elif field.name in found:
                self.problems.append(ConfigProblem(here, f"is given twice, as {key} and under another name; keep one"))
            elif field.secret:
                found[field.name] = value
            else:
                found[field.name] = self._field(field, value, here)
        return found

    def _field(self, field: ModelField, value: Any, path: Path) -> Any:
        submodels = {key: (model, inner) for key, model, inner in nested(field, value)}
        if not submodels:
            return self._resolved(value, path)
        if () in submodels:
            return self._model(*submodels[()], path)
        if isinstance(value, Mapping):
            return {k: self._model(*submodels[k,], (*path, k)) if (k,) in submodels else v for k, v in value.items()}
        return [self._model(*submodels[i,], (*path, i)) if (i,) in submodels else item for i, item in enumerate(value)]

    def _resolved(self, value: Any, path: Path) -> Any:
        if isinstance(value, str) and "${" in value:
            try:
                return resolve(value, self.environ)
            except UnsetVariable as unset:
                self.problems.append(ConfigProblem(path, unset_message(unset.name), missing=unset.name))
            except ValueError as error:
                self.problems.append(ConfigProblem(path, str(error)))
        elif isinstance(value, Mapping):
            return {key: self._resolved(inner, (*path, key)) for key, inner in value.items()}
        elif isinstance(value, list | tuple):
            return [self._resolved(inner, (*path, index)) for index, inner in enumerate(value)]
        return value


def _option_hint(key: str, by_spelling: Mapping[str, ModelField]) -> str:
    found = nearest(key, by_spelling)
    if found is not None:
        return f"did you mean {by_spelling[found].name}?"
    return hint(key, {field.name for field in by_spelling.values()}, what="options")


def _problem(model: type[BaseModel], given: Any, details: ErrorDetails) -> ConfigProblem:
    """What pydantic found, in our words, with a path that exists in what was given."""
    path: list[str | int] = []
    value: Any = given
    part: Any
    for part in details["loc"]:
        inside = (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        )
        if not inside:
            if details["type"] == "missing":
                path.append(part)
            break
        value = value[part]
        path.append(part)
    if details["type"] == "missing":
        return ConfigProblem(tuple(path), "is required and missing")
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if not path or details["type"] == "value_error" or _holds_secrets(model, given, tuple(path)):
        return ConfigProblem(tuple(path), without_userinfo(message))
    return ConfigProblem(tuple(path), without_userinfo(f"{message}; found {value!r}"))


def _holds_secrets(model: type[BaseModel], given: Any, path: Path) -> bool:
    """Whether what ``path`` leads to is a secret, or has one in it: then it is not shown."""
    for name, field in fields_of(model).items():
        if not isinstance(given, Mapping) or name not in given or (path and path[0] != name):
            continue
        if field.secret:
            return True
        for key, submodel, inner in nested(field, given[name]):
            below = path[1:]
            shared = min(len(key), len(below))
            if key[:shared] == below[:shared] and _holds_secrets(submodel, inner, below[len(key) :]):
                return True
    return False


def _replaced_at(value: Any, path: Path, inner: Any) -> Any:
    """A copy of ``value`` with ``inner`` where ``path`` leads."""
    return _replaced(value, path[0], _replaced_at(value[path[0]], path[1:], inner)) if path else inner


def _replaced(value: Any, key: Any, inner: Any) -> Any:
    copy = dict(value) if isinstance(value, Mapping) else list(value)
    copy[key] = inner
    return copy


def _with_secrets(model: type[BaseModel], given: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """``plain`` with the secrets as they were given: pydantic writes asterisks."""
    result = dict(plain)
    for name, field in fields_of(model).items():
        if name not in result or name not in given:
            continue
        if field.secret:
            result[name] = _plain(given[name])
            continue
        for key, submodel, inner in nested(field, given[name]):
            if key == ():
                result[name] = _with_secrets(submodel, inner, result[name])
            else:
                result[name] = _replaced(result[name], key[0], _with_secrets(submodel, inner, result[name][key[0]]))
    return result


def _plain(value: Any) -> Any:
    """A value of a made model as it would have been written."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
