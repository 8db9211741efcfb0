"""``print``: each value on a line of the terminal."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from sage_connectors.terminal_sink import TerminalSink, plain_text


class PrintSinkConfig(BaseModel):
    """How lines look."""

    model_config = ConfigDict(extra="forbid")

    prefix: str = Field(default="", description="Text before each value.")


class PrintSink(TerminalSink):
    """Prints each value: text as it is, anything else as JSON; the same on a terminal and in a pipe."""

    Config: ClassVar[type[BaseModel]] = PrintSinkConfig

    def _line(self, value: Any) -> str:
        return f"{self.config.prefix}{plain_text(value)}"
