"""Contexts for operators of question answering: a record's context, and services with one chat model."""

from __future__ import annotations

import logging
from typing import Any, cast

from sage.ports import ChatModel
from sage.spec.context import Context, OpenContext, Services, StepScope
from sage.spec.direct_calls import DirectCalls


class ModelServices:
    """``Services`` that have a chat model and nothing else; ``asked`` keeps what it was asked for."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self.asked: list[dict[str, Any]] = []

    def chat_model(self, step: str, *, model: str, base_url: str | None, api_key: str | None) -> ChatModel:
        """The one model."""
        self.asked.append({"step": step, "model": model, "base_url": base_url, "api_key": api_key})
        return self.model


def open_context(model: ChatModel) -> OpenContext:
    """What ``open`` is given."""
    return OpenContext("qa", "generate", cast(Services, ModelServices(model)))


def context(record_id: str = "topic:0:1", model: ChatModel | None = None) -> Context:
    """What ``process`` is given for the record of that id."""
    services = cast(Services, ModelServices(cast(ChatModel, model)))
    made = Context(StepScope("qa", "generate", services, logging.getLogger("test")))
    made._record_id = record_id  # bind() wants a Kafka message, which these operators never look at
    return made.attach(calls=DirectCalls(f"{record_id}/generate"))
