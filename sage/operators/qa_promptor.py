"""Question and passages to the messages of a chat call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing as absent
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sage.errors import RecordFailure
from sage.llm.text.extract import best_sentences
from sage.llm.text.words import is_chinese
from sage.model.documents import Document, Message
from sage.operators.record import as_record, missing, text_of, turns_of
from sage.spec.component import Operator
from sage.spec.context import Context

DEFAULT_SYSTEM = "Answer the question with a few words copied from the text."

DEFAULT_TEMPLATE = """\
{% for document in documents %}{{ document.text }}

{% endfor %}In short: {{ documents | relevant(query, 1) | join(" ") }}

Question: {{ query }}"""
"""Whole passages for models that can read them, and the nearest sentence last for those that lose the thread."""


class Example(BaseModel):
    """A question and its model answer, shown to the model before the real one."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(description="What the model is asked, in the form that the template gives it.")
    assistant: str = Field(description="What it should answer.")
    when: str = Field(
        default="true", description="Jinja condition over the record: shown only where it holds, as `query is chinese`."
    )

    @field_validator("when")
    @classmethod
    def _compiles(cls, text: str) -> str:
        condition(text)
        return text


class QAPromptor(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write ``messages`` from ``query``, ``documents`` and ``history`` by a Jinja template.

    The template sees every field of the record. It runs in a sandbox, and a name that the record doesn't have is an
    error, never an empty place. ``documents | relevant(query, 3)`` gives the three sentences nearest to the question,
    ``query is chinese`` tells its language.
    """

    class Config(BaseModel):
        """How the prompt is written."""

        model_config = ConfigDict(extra="forbid")

        template: str = Field(default=DEFAULT_TEMPLATE, description="Jinja template of the user's message.")
        system: str = Field(default=DEFAULT_SYSTEM, description="Jinja template of the system message; empty: none.")
        examples: list[Example] = Field(default=[], description="Questions with model answers, shown first.")
        max_documents: int | None = Field(
            default=None, ge=1, description="The best so many passages are used; unset: all that were retrieved."
        )

        @field_validator("template", "system")
        @classmethod
        def _compiles(cls, text: str) -> str:
            compiled(text)
            return text

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._template = compiled(self.config.template)
        self._system = compiled(self.config.system)
        self._examples = [(condition(example.when), example) for example in self.config.examples]

    def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its ``messages``.

        Raises:
            KeyError: the template names a field that the record doesn't have.
            TypeError: the query is no text, or the documents or the history no list.
            RecordFailure: the template can't be rendered with this record.
        """
        record = as_record(value)
        if "query" in record:
            text_of(record, "query")
        turns = turns_of(record)
        seen = {**record, "history": record.get("history") or []}
        if "documents" in seen:
            if not isinstance(seen["documents"], list | tuple):
                raise TypeError(f"documents is a {type(seen['documents']).__name__}, not a list of passages")
            seen["documents"] = list(seen["documents"])[: self.config.max_documents]
        messages: list[Message] = []
        if system := self._render(self._system, seen, record, "system").strip():
            messages.append(Message(role="system", content=system))
        for holds, example in self._examples:
            if self._render(holds, seen, record, "when"):
                messages.append(Message(role="user", content=example.user))
                messages.append(Message(role="assistant", content=example.assistant))
        messages += turns
        messages.append(Message(role="user", content=self._render(self._template, seen, record, "template")))
        return {**record, "messages": messages}

    def _render(
        self,
        template: Template,
        seen: Mapping[str, Any],
        record: Mapping[str, Any],
        field: Literal["template", "system", "when"],
    ) -> str:
        try:
            return template.render(seen)
        except KeyError as error:
            missing(record, str(error.args[0]), hint=_HINTS.get(error.args[0], f"The {field} needs it."))
        except (TemplateError, TypeError, ValueError) as error:
            raise RecordFailure(f"{field}{_line(error)}: {error}; mend the {field}, or the record") from error


_HINTS = {"documents": "Is a retriever upstream?", "query": "Is the question in a field called query?"}


class _RecordUndefined(StrictUndefined):
    """A name that the record doesn't have: a ``KeyError``, as for any other look-up in a record."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = absent,
        name: str | None = None,
        exc: type[Exception] = UndefinedError,
    ) -> None:
        if isinstance(obj, _RecordUndefined):  # an element of something that isn't there: that is what is missing
            obj, name = obj._undefined_obj, obj._undefined_name
        # Jinja raises exc(message); for a top-level name both become those of a dictionary.
        if obj is absent and name is not None:
            hint, exc = name, KeyError
        super().__init__(hint, obj, name, exc)  # type: ignore[arg-type]


def _environment() -> ImmutableSandboxedEnvironment:
    undefined: type[Undefined] = _RecordUndefined
    environment = ImmutableSandboxedEnvironment(undefined=undefined, autoescape=False, keep_trailing_newline=False)
    environment.filters["relevant"] = relevant
    environment.tests["chinese"] = is_chinese
    return environment


def relevant(documents: Sequence[Document], query: str, count: int = 3) -> list[str]:
    """The ``count`` sentences of the passages that are nearest to the question, best first."""
    return [extract.text for extract in best_sentences(query, documents, count=count)]


_ENVIRONMENT = _environment()


def compiled(text: str) -> Template:
    """A template ready to render.

    Raises:
        ValueError: it is not a Jinja template; says in which line.
    """
    try:
        return _ENVIRONMENT.from_string(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from error


def condition(text: str) -> Template:
    """A condition as a template that gives something where it holds, and nothing where not.

    Raises:
        ValueError: it is not a Jinja expression.
    """
    return compiled(f"{{% if {text} %}}true{{% endif %}}")


def _line(error: BaseException) -> str:
    """The line of the template that the error came from."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" line {line}"
