"""Which service a chat model's name leads to, and with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.errors import MissingVariable, Unreachable

if TYPE_CHECKING:
    from sage.llm.chat.openai_model import OpenAIChatModel

LOCAL_PREFIX = "local/"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "local/smollm2"
_DEFAULT_HOSTED_MODEL = "gpt-4.1-mini"
_NO_KEY = "none"


@dataclass(frozen=True, slots=True)
class ChatService:
    """Where chat calls go. The key is left out of every printed form."""

    base_url: str
    api_key: str = field(repr=False)


def is_local(model: str) -> bool:
    """Whether the name means weights on this machine, served by SAGE's own model server."""
    return model.startswith(LOCAL_PREFIX)


def chat_service(
    *,
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    local_url: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> ChatService:
    """The service for ``model``: the step's own ``base_url``, else this folder's server for ``local/``
    names, else ``OPENAI_BASE_URL`` with ``OPENAI_API_KEY``.

    Args:
        local_url: the running local model server, for example ``http://127.0.0.1:18080/v1``.

    Raises:
        Unreachable: a local model, and no server for it runs.
        MissingVariable: a hosted model, and no key is set anywhere.
    """
    variables = os.environ if environ is None else environ
    if is_local(model):
        address = base_url or local_url
        if address is None:
            raise Unreachable(f"no server runs for model {model}. Start it with `sage up`, or `sage models serve`.")
        return ChatService(address, api_key or _NO_KEY)
    key = api_key or variables.get("OPENAI_API_KEY")
    if not key:
        raise MissingVariable(f"OPENAI_API_KEY is not set. Set it, or use model: {DEFAULT_MODEL}.")
    return ChatService(base_url or variables.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL, key)


def open_chat_model(
    *,
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    local_url: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> OpenAIChatModel:
    """A client for ``model``; arguments and errors as in ``chat_service``. Nothing is sent yet."""
    from sage.llm.chat.openai_model import OpenAIChatModel  # the openai package takes a second to import

    service = chat_service(model=model, base_url=base_url, api_key=api_key, local_url=local_url, environ=environ)
    return OpenAIChatModel(service.base_url, service.api_key)


async def preferred_model(environ: Mapping[str, str] | None = None) -> str:
    """The model that a demonstration should use.

    ``OPENAI_MODEL``; else, where a key is set, the first model that ``OPENAI_BASE_URL`` lists or the hosted
    service's small one; else the local one.

    Raises:
        SageError: the service at ``OPENAI_BASE_URL`` can't be asked.
    """
    variables = os.environ if environ is None else environ
    if named := variables.get("OPENAI_MODEL"):
        return named
    key, base_url = variables.get("OPENAI_API_KEY"), variables.get("OPENAI_BASE_URL")
    if not key:
        return DEFAULT_MODEL
    if not base_url:
        return _DEFAULT_HOSTED_MODEL
    client = open_chat_model(model=_DEFAULT_HOSTED_MODEL, base_url=base_url, api_key=key)
    try:
        listed = await client.models()
    finally:
        await client.close()
    return _DEFAULT_HOSTED_MODEL if _DEFAULT_HOSTED_MODEL in listed or not listed else listed[0]
