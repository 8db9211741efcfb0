"""The fields of a pydantic model as options: their spellings, which are secret, which hold models."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

_SHORT = {"top_k": "topk"}
"""Spellings that are accepted everywhere."""


@dataclass(frozen=True, slots=True)
class ModelField:
    """One option.

    Attributes:
        name: its proper name.
        spellings: every name it may be given by, the proper one first.
        secret: whether its value must not be seen.
        instead: what a user without the secret can do, from ``json_schema_extra={"instead": ...}``.
        annotation: its type.
    """

    name: str
    spellings: tuple[str, ...]
    secret: bool
    instead: str
    annotation: Any


@functools.cache
def fields_of(model: type[BaseModel]) -> Mapping[str, ModelField]:
    """The options of a model, by name."""
    return {name: _field(name, info) for name, info in model.model_fields.items()}


def nested(field: ModelField, value: Any) -> Iterator[tuple[tuple[Any, ...], type[BaseModel], Mapping[str, Any]]]:
    """The mappings in a field's value that are models of their own: (key inside the value, model, mapping).

    The key is empty where the value itself is one.
    """
    held = _held(field.annotation)
    if held is None:
        return
    container, model = held
    if container is None and isinstance(value, Mapping):
        yield (), model, value
    elif container is list and isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            if isinstance(inner, Mapping):
                yield (index,), model, inner
    elif container is dict and isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping):
                yield (key,), model, inner


def _field(name: str, info: FieldInfo) -> ModelField:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    spellings = [name]
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        spellings += [choice for choice in alias.choices if isinstance(choice, str)]
    elif isinstance(alias, str):
        spellings.append(alias)
    if name in _SHORT:
        spellings.append(_SHORT[name])
    secret = bool(extra.get("secret")) or _holds_secret(info.annotation)
    return ModelField(name, tuple(dict.fromkeys(spellings)), secret, str(extra.get("instead", "")), info.annotation)


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        return True
    return any(_holds_secret(argument) for argument in get_args(annotation))


def _held(annotation: Any) -> tuple[type | None, type[BaseModel]] | None:
    """(container, model) of ``Model``, ``list[Model]``, ``dict[str, Model]`` and their optional forms, else nothing.

    A choice of several types is left to pydantic.
    """
    choices = [a for a in get_args(annotation) if a is not type(None)] if _is_union(annotation) else [annotation]
    if len(choices) != 1:
        return None
    (only,) = choices
    if isinstance(only, type) and issubclass(only, BaseModel):
        return None, only
    origin, inner = get_origin(only), get_args(only)
    if not isinstance(origin, type) or not inner:
        return None
    element = inner[1] if issubclass(origin, Mapping) and len(inner) == 2 else inner[0]
    if not (isinstance(element, type) and issubclass(element, BaseModel)):
        return None
    if issubclass(origin, Mapping):
        return dict, element
    return (list, element) if issubclass(origin, Sequence) else None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, UnionType}
