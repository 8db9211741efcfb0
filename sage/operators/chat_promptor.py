"""A user's words and the turns before them to the messages of a chat call, without passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sage.model.documents import Message
from sage.operators.record import as_record, required, text_of, turns_of
from sage.spec.component import Operator
from sage.spec.context import Context


class ChatPromptor(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write ``messages`` from ``query`` and ``history``."""

    class Config(BaseModel):
        """How the conversation is told."""

        model_config = ConfigDict(extra="forbid")

        system: str = Field(default="", description="The system message; empty: none.")
        max_history: int | None = Field(
            default=None, ge=0, description="The last so many turns are told; unset: all of them."
        )

    def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its ``messages``.

        Raises:
            KeyError: the record has no ``query``.
            TypeError: it is no text, or the history no list of turns.
        """
        record = as_record(value)
        required(record, "query", hint="Is the question in a field called query?")
        query, turns = text_of(record, "query"), turns_of(record)
        if self.config.max_history is not None:
            turns = turns[len(turns) - min(self.config.max_history, len(turns)) :]
        system = [Message(role="system", content=self.config.system)] if self.config.system else []
        return {**record, "messages": [*system, *turns, Message(role="user", content=query)]}
