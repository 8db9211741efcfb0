"""Which service a model's name leads to."""

from __future__ import annotations

from typing import Any

import pytest

from sage.errors import MissingVariable, Unauthorized, Unreachable
from sage.llm.chat.service import chat_service, preferred_model
from tests.support.llm_server import FakeOpenAI

LOCAL = "http://127.0.0.1:18080/v1"
KEY = {"OPENAI_API_KEY": "k"}
THEIRS = {**KEY, "OPENAI_BASE_URL": "https://llm.example/v1"}


@pytest.mark.parametrize(
    ("options", "environ", "address", "key"),
    [
        ({"model": "m"}, KEY, "https://api.openai.com/v1", "k"),
        ({"model": "m"}, THEIRS, "https://llm.example/v1", "k"),
        ({"model": "m", "base_url": "http://here/v1"}, THEIRS, "http://here/v1", "k"),
        ({"model": "m", "api_key": "own"}, THEIRS, "https://llm.example/v1", "own"),
        ({"model": "local/smollm2", "local_url": LOCAL}, THEIRS, LOCAL, "none"),
        ({"model": "local/smollm2", "local_url": LOCAL, "base_url": "http://gpu/v1"}, {}, "http://gpu/v1", "none"),
    ],
)
def test_the_steps_own_settings_come_before_the_environments(
    options: dict[str, Any], environ: dict[str, str], address: str, key: str
) -> None:
    service = chat_service(**options, environ=environ)
    assert (service.base_url, service.api_key) == (address, key)
    assert key == "none" or key not in repr(service).replace(address, "")


def test_a_hosted_model_needs_a_key() -> None:
    with pytest.raises(MissingVariable, match="OPENAI_API_KEY is not set"):
        chat_service(model="m", base_url="http://127.0.0.1:1/v1", environ={"OPENAI_API_KEY": ""})


def test_a_local_model_needs_its_server() -> None:
    with pytest.raises(Unreachable, match=r"no server runs for model local/smollm2.*sage up"):
        chat_service(model="local/smollm2", environ=THEIRS)


class TestPreferredModel:
    @pytest.mark.parametrize(
        ("environ", "model"),
        [
            ({}, "local/smollm2"),
            ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "local/smollm2"),
            ({"OPENAI_MODEL": "mine"}, "mine"),
            (KEY, "gpt-4.1-mini"),
        ],
    )
    async def test_is_chosen_without_asking_anybody(self, environ: dict[str, str], model: str) -> None:
        assert await preferred_model(environ) == model

    @pytest.mark.parametrize(
        ("listed", "model"),
        [(("a", "b"), "a"), (("a", "gpt-4.1-mini"), "gpt-4.1-mini"), ((), "gpt-4.1-mini")],
    )
    async def test_is_one_that_the_service_has(self, listed: tuple[str, ...], model: str) -> None:
        with FakeOpenAI(models=listed) as service:
            assert await preferred_model({**KEY, "OPENAI_BASE_URL": service.base_url}) == model

    async def test_says_when_the_service_refuses(self) -> None:
        with FakeOpenAI(mode="unauthorized") as service, pytest.raises(Unauthorized):
            await preferred_model({**KEY, "OPENAI_BASE_URL": service.base_url})
