from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from sage.errors import SageError
from sage.model.record import Record
from sage.spec.component import Operator, Sink, Source
from sage.spec.context import Context
from sage.spec.shape import Shape, call_problem, callable_of, shape_of

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]
    from nowhere import sage as unseen


class Question(BaseModel):
    text: str


def plain(value: str) -> int: ...
async def later(value: Question) -> bytes: ...
def with_ctx(value: str, ctx: Any) -> None: ...
def with_annotated(value: str, context: Context) -> None: ...
def with_keyword(value: str, *, ctx: Any) -> None: ...
def with_third(value: str, extra: int = 1, ctx: Any = None) -> None: ...
def with_optional(value: str, context: Context | None = None) -> None: ...
def only_ctx(ctx: str) -> None: ...
def generator(value: str) -> Iterator[int]:
    yield 1


async def async_generator(value: str, ctx: Context) -> AsyncIterator[str]:
    yield ""


def listing(value: str) -> list[int]: ...
def promising(value: str) -> Awaitable[int]: ...
def unresolvable(value: Unknown, ctx: Context) -> Question: ...
def unresolvable_optional(value: Unknown, given: unseen.Context | None = None) -> Question: ...


class Called:
    async def __call__(self, value: str, ctx: Any) -> int: ...


class Method:
    def clean(self, value: str) -> int: ...


def test_plain_functions() -> None:
    assert shape_of(plain) == Shape(input_type=str, output_type=int)
    assert shape_of(later) == Shape(is_async=True, input_type=Question, output_type=bytes)
    assert shape_of(promising) == Shape(is_async=True, input_type=str, output_type=int)
    assert shape_of(lambda value: value) == Shape()
    assert shape_of(str.upper).takes_ctx is False
    assert shape_of(Method().clean) == Shape(input_type=str, output_type=int)
    assert shape_of(int).output_type is int


@pytest.mark.parametrize(
    ("function", "takes", "keyword"),
    [
        (with_ctx, True, None),
        (with_annotated, True, None),
        (with_keyword, True, "ctx"),
        (with_third, True, "ctx"),
        (with_optional, True, None),
        (only_ctx, False, None),
        (plain, False, None),
        (lambda value, ctx: value, True, None),
        (Called(), True, None),
        (Called, True, None),
        (unresolvable, True, None),
        (unresolvable_optional, True, None),
    ],
)
def test_the_context_is_asked_for_by_name_or_annotation(function: Any, takes: bool, keyword: str | None) -> None:
    shape = shape_of(function)
    assert (shape.takes_ctx, shape.ctx_keyword) == (takes, keyword)


def test_one_annotation_that_fails_does_not_hide_the_others() -> None:
    shape = shape_of(unresolvable)
    assert shape.input_type is Any
    assert shape.output_type is Question


def test_flatmaps_give_the_type_of_one_value() -> None:
    assert shape_of(generator, "flatmap").output_type is int
    assert shape_of(generator, "flatmap").is_generator
    assert shape_of(listing, "flatmap").output_type is int
    assert shape_of(listing, "map").output_type == list[int]
    shape = shape_of(async_generator, "flatmap")
    assert (shape.is_async, shape.is_generator, shape.output_type) == (True, True, str)


def test_map_batches_give_the_type_of_one_value() -> None:
    async def batched(values: list[str]) -> list[int]: ...

    assert shape_of(batched, "map_batches") == Shape(is_async=True, input_type=str, output_type=int)


def test_partials_and_callable_objects() -> None:
    def scaled(factor: int, value: str, ctx: Context) -> int: ...

    shape = shape_of(functools.partial(scaled, 2))
    assert (shape.takes_ctx, shape.ctx_keyword, shape.input_type) == (True, None, str)
    assert shape_of(functools.partial(later)).is_async
    assert shape_of(Called()) == Shape(is_async=True, takes_ctx=True, input_type=str, output_type=int)
    assert shape_of(Called) == shape_of(Called())


class Sync(Operator[str, bytes]):
    blocking = True

    def process(self, value, ctx):  # type: ignore[no-untyped-def]
        return b""


class Annotated(Operator[Any, dict[str, Any]]):
    async def process(self, value: Question, ctx: Context) -> dict[str, Any]: ...


class Batched(Operator[str | Mapping[str, Any], dict[str, Any]]):
    async def process_batch(self, values: Sequence[Any], contexts: Sequence[Context]) -> Sequence[dict[str, Any]]: ...


class Splitting(Operator[str, str]):
    def process(self, value: str, ctx: Context) -> Iterator[str]:
        yield value


class Inherited(Sync):
    pass


def test_operators() -> None:
    assert shape_of(Sync) == Shape(takes_ctx=True, input_type=str, output_type=bytes, blocking=True)
    assert shape_of(Inherited).output_type is bytes
    assert shape_of(Annotated).input_type is Question
    assert shape_of(Annotated).is_async
    batched = shape_of(Batched)
    assert (batched.has_batch, batched.output_type) == (True, dict[str, Any])
    assert shape_of(Splitting, "flatmap").output_type is str


def test_sources_and_sinks() -> None:
    class Ticks(Source[bytes]):
        async def read(self, task, position, *, bounded):  # type: ignore[no-untyped-def]
            yield b"", 0

    class Untyped(Source):  # type: ignore[type-arg]
        async def read(
            self, task: str, position: Any, *, bounded: bool
        ) -> AsyncIterator[tuple[int | Record[int], Any]]:
            yield 1, 1

    class Out(Sink):  # type: ignore[type-arg]
        async def write(self, records: Sequence[Record[str]]) -> None: ...

    assert shape_of(Ticks, "source").output_type is bytes
    assert shape_of(Untyped, "source").output_type is int
    assert shape_of(Out, "sink").input_type is str


def test_nothing_and_field_names_have_an_empty_shape() -> None:
    assert shape_of(None) == shape_of("field", "key_by") == Shape()


@pytest.mark.parametrize(
    "function", [plain, with_ctx, with_keyword, with_third, only_ctx, Called(), Called, int, str.upper]
)
def test_what_a_step_can_call_has_no_problem(function: Any) -> None:
    assert call_problem(function) is None


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (3, "3 is not a function"),
        (lambda: 1, "takes no value"),
        (lambda value, other: value, "needs other too"),
        (lambda ctx, value: value, "takes ctx first"),
        (lambda *, value: value, "takes no value"),
    ],
)
def test_what_a_step_cannot_call_is_told(function: Any, told: str) -> None:
    assert told in str(call_problem(function))


def test_classes_with_call_are_made_once() -> None:
    assert isinstance(callable_of(Called), Called)
    assert callable_of(int) is int
    assert callable_of(plain) is plain


def test_a_class_that_can_t_be_made_is_named_with_its_error() -> None:
    class Broken:
        def __init__(self) -> None:
            raise KeyError("TOKEN")

        def __call__(self, value: str) -> str: ...

    with pytest.raises(SageError, match=r"making Broken failed: KeyError: 'TOKEN'"):
        callable_of(Broken)
