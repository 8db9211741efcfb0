"""What can be known about a step's code without running it: how it is called, and what it takes and gives."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from collections.abc import Iterable as AbstractIterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin

from sage.errors import SageError
from sage.model.record import Record
from sage.spec.component import Component, Operator, Sink, Source
from sage.spec.context import Context

_MANY = frozenset({"flatmap", "process"})
"""Kinds whose code gives zero or more values; their output type is the type of one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a step's code is called and what it takes and gives.

    Attributes:
        is_async: it is a coroutine function or an async generator, or says that it returns an awaitable.
        is_generator: it is a generator function, sync or async.
        takes_ctx: it wants the context beside the value.
        ctx_keyword: the keyword the context must be given by; ``None`` where it is the second positional
            parameter.
        input_type, output_type: as annotated; ``Any`` where nothing is known. Of one value also where the
            code takes or gives several (``flatmap``, ``map_batches``).
        has_batch: an operator with ``process_batch``.
        blocking: an operator that declares itself blocking.
    """

    is_async: bool = False
    is_generator: bool = False
    takes_ctx: bool = False
    ctx_keyword: str | None = None
    input_type: Any = Any
    output_type: Any = Any
    has_batch: bool = False
    blocking: bool = False


def is_component(target: Any) -> bool:
    """Whether this is an operator, source or sink class."""
    return isinstance(target, type) and issubclass(target, Component)


def callable_of(target: Any) -> Callable[..., Any]:
    """What to call for a target that is no component.

    A class that defines ``__call__`` is made once, without arguments; other classes are called as they are,
    like functions.

    Raises:
        SageError: the class can't be made.
    """
    if _defines_call(target):
        with making(target):
            made: Callable[..., Any] = target()
        return made
    function: Callable[..., Any] = target
    return function


@contextmanager
def making(target: type, *, where: str | None = None, hint: str = "") -> Iterator[None]:
    """Tell of a user's class that raises when it is made: which it was, and where it is used."""
    try:
        yield
    except SageError:
        raise
    except Exception as error:
        text = f"making {target.__name__} failed: {type(error).__name__}: {error}"
        raise SageError(f"{text}; {hint}" if hint and isinstance(error, TypeError) else text, where=where) from error


def shape_of(target: Any, kind: str = "map") -> Shape:
    """The shape of a step's target; of nothing (``union``) and of field names (``key_by``) an empty one.

    Never raises: what can't be found out is ``Any`` or false.
    """
    if target is None or isinstance(target, str):
        return Shape()
    if is_component(target):
        return _component_shape(target, kind)
    return _callable_shape(target, kind)


def calls_out(target: Any) -> bool:
    """Whether a step's code, as far as it can be seen, makes journaled calls: ``ctx.call`` or ``idempotency_key``."""
    code = target.process if is_component(target) and hasattr(target, "process") else _code_of(target)
    return any(_JOURNALED & set(each.co_names) for each in _codes(getattr(code, "__code__", None)))


_JOURNALED = frozenset({"call", "idempotency_key"})


def _codes(code: types.CodeType | None) -> Iterator[types.CodeType]:
    """A function's code object and those of the functions inside it."""
    if code is not None:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from _codes(constant)


def call_problem(target: Any) -> str | None:
    """Why a step can't call this function with ``(value)`` or ``(value, ctx)``; ``None`` if it can."""
    if not callable(target):
        return f"{target!r} is not a function"
    if _defines_call(target) and not _is_made_alone(target):
        return f"can't be made without arguments; give an instance: {target.__name__}(...)"
    parameters = _parameters(target)
    if parameters is None:
        return None
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL}]
    if not positional:
        return "takes no value; write a function of (value) or (value, ctx)"
    ctx = _ctx_parameter(parameters, _annotations(target))
    needed = [p for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if len(needed) > 1 and ctx is not None and needed[0].name == ctx.name:
        return f"takes {ctx.name} first; write a function of (value, {ctx.name})"
    extra = [p.name for p in needed if p is not positional[0] and (ctx is None or p.name != ctx.name)]
    if extra:
        return f"needs {', '.join(extra)} too; write a function of (value) or (value, ctx)"
    return None


def _callable_shape(target: Any, kind: str) -> Shape:
    if isinstance(target, type) and not _defines_call(target):
        return Shape(output_type=target)
    code = _code_of(target)
    hints = _annotations(code)
    parameters = _parameters(target) or []
    ctx = _ctx_parameter(parameters, hints)
    given = parameters[0].name if parameters else ""
    returned = hints.get("return", Any)
    return _shaped(
        code,
        kind,
        takes=hints.get(given, Any),
        returned=returned,
        takes_ctx=ctx is not None,
        ctx_keyword=_keyword(parameters, ctx),
    )


def _component_shape(target: type[Component], kind: str) -> Shape:
    if issubclass(target, Source):
        (given,) = _type_arguments(target, Source, 1)
        hints = _annotations(target.read)
        pair = get_args(_element(hints.get("return", Any)))
        return Shape(is_async=True, is_generator=True, output_type=_known(given, _plain(pair[0]) if pair else Any))
    if issubclass(target, Sink):
        (taken,) = _type_arguments(target, Sink, 1)
        hints = _annotations(target.write)
        return Shape(is_async=True, input_type=_known(taken, _plain(_element(hints.get("records", Any)))))
    taken, given = _type_arguments(target, Operator, 2)
    batch = callable(getattr(target, "process_batch", None))
    code = getattr(target, "process", None)
    if code is None or code is Operator.process:
        return Shape(is_async=True, takes_ctx=True, input_type=taken, output_type=given, has_batch=batch)
    hints = _annotations(code)
    parameters = (_parameters(code) or [])[1:]
    takes_value = hints.get(parameters[0].name, Any) if parameters else Any
    return _shaped(
        code,
        kind,
        takes=_known(takes_value, taken),
        returned=hints.get("return", Any),
        declared=given,
        takes_ctx=len(parameters) != 1,
        has_batch=batch,
        blocking=target.blocking,
    )


def _shaped(code: Any, kind: str, *, takes: Any, returned: Any, declared: Any = Any, **rest: Any) -> Shape:
    """A shape from a function's code and annotations; ``declared`` is what the class's type arguments say."""
    asynchronous = inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)
    generator = inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)
    origin = get_origin(returned)
    if origin in {Awaitable, Coroutine}:
        asynchronous = True
        returned = get_args(returned)[-1]
    if generator or kind in _MANY:
        returned = _element(returned)
    if kind == "map_batches":
        takes, returned = _element(takes), _element(returned)
    return Shape(
        is_async=asynchronous,
        is_generator=generator,
        input_type=takes,
        output_type=_known(returned, declared),
        **rest,
    )


def _defines_call(target: Any) -> bool:
    """Whether this is a class whose instances can be called."""
    return isinstance(target, type) and any("__call__" in vars(base) for base in target.__mro__[:-1])


def _is_made_alone(target: Any) -> bool:
    """Whether a class takes no arguments, as far as can be seen."""
    try:
        inspect.signature(target).bind()
    except TypeError:
        return False
    except ValueError:  # C code without a signature: seen when it runs
        return True
    return True


def _code_of(target: Any) -> Any:
    """The function whose code runs when ``target`` is called."""
    while isinstance(target, functools.partial):
        target = target.func
    if inspect.isroutine(target):
        return target
    return getattr(target if isinstance(target, type) else type(target), "__call__", target)  # noqa: B004


def _parameters(target: Any) -> list[inspect.Parameter] | None:
    """A callable's parameters as it is called, or ``None`` where Python can't tell, as with some C code."""
    try:
        if _defines_call(target):
            return list(inspect.signature(target.__call__).parameters.values())[1:]
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None


def _annotations(code: Any) -> dict[str, Any]:
    """Resolved annotations; one that can't be resolved is left out, and the others stay."""
    while isinstance(code, functools.partial):
        code = code.func
    try:
        return typing.get_type_hints(code)
    except Exception:  # an annotation is any expression, so looking at it can raise anything
        pass
    raw = getattr(code, "__annotations__", None) or {}
    scope = getattr(inspect.unwrap(code) if callable(code) else code, "__globals__", {})
    found: dict[str, Any] = {}
    for name, annotation in dict(raw).items():
        try:
            found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), globalns=scope)
        except Exception:
            # A name under TYPE_CHECKING, most likely; that it is our Context can be seen all the same.
            members = annotation.split("|") if isinstance(annotation, str) else ()
            if Context.__name__ in {member.strip().rpartition(".")[2] for member in members}:
                found[name] = Context
    return found


def _ctx_parameter(parameters: list[inspect.Parameter], hints: dict[str, Any]) -> inspect.Parameter | None:
    """The parameter that takes the context: named ``ctx``, or annotated ``Context``; a lone one is the value."""
    named = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if len(named) < 2:
        return None
    for parameter in named:
        annotation = hints.get(parameter.name)
        members = get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)
        if parameter.name == "ctx" or any(isinstance(m, type) and issubclass(m, Context) for m in members):
            return parameter
    return None


def _keyword(parameters: list[inspect.Parameter], ctx: inspect.Parameter | None) -> str | None:
    if ctx is None or (len(parameters) > 1 and parameters[1].name == ctx.name and ctx.kind is not ctx.KEYWORD_ONLY):
        return None
    return ctx.name


def _type_arguments(cls: type, generic: type, count: int) -> tuple[Any, ...]:
    """What a class says of its generic base, ``Operator[str, str]``; ``Any`` where it says nothing."""
    for base in cls.__mro__:
        for written in vars(base).get("__orig_bases__", ()):
            if get_origin(written) is generic:
                return tuple(Any if isinstance(argument, TypeVar) else argument for argument in get_args(written))
    return (Any,) * count


def _element(annotation: Any) -> Any:
    """The type of one value of an iterable; ``Any`` where the annotation isn't one."""
    origin = get_origin(annotation)
    iterables = {AbstractIterable, AsyncIterable, AsyncIterator, Generator, AsyncGenerator}
    if isinstance(origin, type) and (origin in iterables or issubclass(origin, AbstractIterable | AsyncIterable)):
        arguments = get_args(annotation)
        return arguments[0] if arguments else Any
    return Any


def _plain(annotation: Any) -> Any:
    """The value's type where a component may give or take a ``Record`` around it."""
    if get_origin(annotation) is Record:
        return get_args(annotation)[0]
    if get_origin(annotation) in {Union, types.UnionType}:
        members = tuple(dict.fromkeys(_plain(member) for member in get_args(annotation)))
        return Union[members]  # noqa: UP007 - made at run time
    return annotation


def _known(annotation: Any, otherwise: Any) -> Any:
    return otherwise if annotation is Any or isinstance(annotation, TypeVar) else annotation
