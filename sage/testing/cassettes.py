"""Model cassettes: real answers recorded into a file once, and played back in tests from then on.

::

    def test_leave(sage_driver, sage_cassette):
        with sage_driver("rag.yaml", {"generate": sage_cassette()}) as driver:
            driver.send({"query": "How many days of leave?"})
            assert "20" in driver.outputs("generate")[0]["answer"]

``pytest --sage-record=once`` calls the model and writes ``cassettes/<file>/<test>.json`` beside the test; without
it the file is all that is asked, so CI needs neither network nor key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sage.errors import NotFound, SageError
from sage.ports import ChatModel, ChatRequest, ChatResponse
from sage.testing.deltas import give_deltas

if TYPE_CHECKING:
    from sage.runtime.concurrent.bridge import LoopThread

Mode = Literal["none", "once", "all"]
"""``none`` plays back and calls nobody; ``once`` records where there is no file yet, and plays back where there is;
``all`` calls the model each time and writes the file anew."""

_VERSION = 1
_SECRET = re.compile(r"api.?key|authorization|token|secret|password|credential|cookie", re.IGNORECASE)
_NOT_SECRET = re.compile(r"tokens$", re.IGNORECASE)
"""``max_tokens`` is a number of them."""

_HIDDEN = "***"
_SHORTEST_SECRET = 6
"""Characters; a shorter value of a variable is no secret worth the name, and stands in too many texts."""


class CassetteChatModel:
    """The ``ChatModel`` port: a recorded one, with the real one behind it while recording.

    A request is known by its messages, model and settings; the same request asked again gets the next answer that
    was recorded for it, and the last one for ever. Errors of the model are raised and not recorded. Values of
    variables that are secrets by their names, and settings that are, are never written: ``***`` stands for them.

    Args:
        path: the file.
        mode: when the model is called.
        model: the real one; by default the one that the request names, at ``OPENAI_BASE_URL`` with
            ``OPENAI_API_KEY``.
        environ: the variables; this process's by default.

    Raises:
        SageError: the file is no cassette.
    """

    def __init__(
        self,
        path: str | Path,
        mode: Mode = "none",
        model: ChatModel | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._path = Path(path)
        self._environ = os.environ if environ is None else environ
        self._model = model
        self._opened: dict[str, ChatModel] = {}
        self._thread: LoopThread | None = None
        there = self._path.exists()
        self._records = mode == "all" or (mode == "once" and not there)
        self._interactions: dict[str, dict[str, Any]] = {} if self._records or not there else self._read()
        self._asked: Counter[str] = Counter()
        self.requests: list[ChatRequest] = []

    @property
    def is_recording(self) -> bool:
        """Whether the real model is called."""
        return self._records

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse:
        """The recorded answer, or the real one, which is recorded.

        Raises:
            NotFound: nothing was recorded for this request.
            SageError: what the real model raises.
        """
        self.requests.append(request)
        known = self._described(request)
        key = _key(known)
        if self._records:
            response = self._call(request)
            self._record(key, known, response)
        else:
            response = self._recorded(key, request)
        self._asked[key] += 1
        await give_deltas(response.text, on_delta)
        return response

    async def close(self) -> None:
        """Close the real model, where it was called."""
        opened, self._opened = self._opened, {}
        if self._thread is not None:
            for model in opened.values():
                self._thread.call(model.close())
            self._thread.close()
            self._thread = None

    # ------------------------------------------------------------------------------------- playing back

    def _recorded(self, key: str, request: ChatRequest) -> ChatResponse:
        interaction = self._interactions.get(key)
        if interaction is None:
            asked = request.messages[-1]["content"][:80]
            what = "there is no cassette" if not self._path.exists() else "the cassette holds no answer to this request"
            raise NotFound(
                f"{what}: {asked!r}; record it with `pytest --sage-record=all` (or once), or put the prompt back",
                where=str(self._path),
            )
        responses = interaction["responses"]
        return ChatResponse(**responses[min(self._asked[key], len(responses) - 1)])

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}")
            return {one["key"]: one for one in content["interactions"]}
        except (ValueError, KeyError, TypeError) as error:
            raise SageError(
                f"not a cassette of this version: {error}; delete it and record it anew", where=str(self._path)
            ) from error

    # ---------------------------------------------------------------------------------------- recording

    def _call(self, request: ChatRequest) -> ChatResponse:
        # In a thread with a loop of its own: the loop of a driven test lives in virtual time, in which no answer
        # from outside ever comes.
        from sage.runtime.concurrent.bridge import LoopThread

        if self._thread is None:
            self._thread = LoopThread("sage-cassette")
        return self._thread.call(self._real(request.model).complete(request))

    def _real(self, model: str) -> ChatModel:
        if self._model is not None:
            self._opened[""] = self._model
            return self._model
        if model not in self._opened:
            from sage.llm.chat.service import open_chat_model

            self._opened[model] = open_chat_model(model=model, environ=self._environ)
        return self._opened[model]

    def _record(self, key: str, known: Mapping[str, Any], response: ChatResponse) -> None:
        answer = {
            "text": response.text,
            "model": response.model,
            "usage": dict(response.usage),
            "finish_reason": response.finish_reason,
            "id": response.id,
        }
        interaction = self._interactions.setdefault(key, {"key": key, "request": known, "responses": []})
        interaction["responses"].append(self._hidden(answer))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = {"version": _VERSION, "interactions": list(self._interactions.values())}
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(self._path)

    def _described(self, request: ChatRequest) -> dict[str, Any]:
        """What an answer hangs on, without secrets; how long to wait and under which key is no part of it."""
        settings = {
            "model": request.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "extra": dict(request.extra),
        }
        hidden: dict[str, Any] = self._hidden(settings)
        return hidden

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets():
                value = value.replace(secret, _HIDDEN)
            return value
        if isinstance(value, Mapping):
            return {name: _HIDDEN if _is_secret(str(name)) else self._hidden(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(one) for one in value]
        return value

    def _secrets(self) -> list[str]:
        found = {text for name, text in self._environ.items() if _is_secret(name) and len(text) >= _SHORTEST_SECRET}
        return sorted(found, key=len, reverse=True)  # a secret inside another is hidden with it


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name)) and not _NOT_SECRET.search(name)


def _key(known: Mapping[str, Any]) -> str:
    text = json.dumps(known, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
