"""A user's words and the turns before them to the messages of a chat call, without passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sage.model.documents import Message
from sage.operators.record import as_record, required
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
        """
        record = as_record(value)
        query = required(record, "query", hint="Is the question in a field called query?")
        turns = list(record.get("history") or ())
        if self.config.max_history is not None:
            turns = turns[len(turns) - min(self.config.max_history, len(turns)) :]
        system = [Message(role="system", content=self.config.system)] if self.config.system else []
        history = [Message(role=turn["role"], content=turn["content"]) for turn in turns]
        return {**record, "messages": [*system, *history, Message(role="user", content=str(query))]}
