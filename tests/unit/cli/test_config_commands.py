"""``sage config``: what is typed, what is kept, and what is never shown."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Sage

SECRET = ("--secret", "sasl.password=env:KPW")


def made(sage: Sage) -> None:
    assert sage("config", "set-context", "prod", "-b", "k1:9093", "-k", "security.protocol=SASL_SSL", *SECRET).code == 0
    assert sage("config", "set-context", "dev", "-b", "localhost:9092", "--control-prefix", "team").out == "made dev\n"


def test_the_first_context_is_used_until_another_is_chosen(sage: Sage) -> None:
    made(sage)
    assert sage("config", "current-context").out == "prod\n"
    assert sage("config", "use-context", "dev").out == "using dev\n"
    rows = json.loads(sage("config", "get-contexts", "-o", "json").out)
    assert [(row["name"], row["current"], row["control_prefix"]) for row in rows] == [
        ("prod", False, ""),
        ("dev", True, "team"),
    ]
    title, first, second = sage("config", "get-contexts").out.splitlines()
    assert title.split() == ["CURRENT", "NAME", "BROKERS"]
    assert first.split() == ["prod", "k1:9093"]
    assert second.split() == ["*", "dev", "localhost:9092"]


def test_what_is_not_named_stays(sage: Sage) -> None:
    made(sage)
    assert sage("config", "set-context", "prod", "-k", "sasl.username=ann", "--use").out == "changed prod\n"
    assert sage("config", "set-context", "prod", "-k", "security.protocol=").code == 0
    (row, _) = json.loads(sage("config", "get-contexts", "-o", "json").out)
    assert row["kafka"] == {"sasl.password": "env:KPW", "sasl.username": "ann"}
    assert row["bootstrap_servers"] == "k1:9093"


def test_view_says_which_brokers_and_why_with_secrets_masked(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    made(sage)
    assert "context 'prod' kafka.sasl.password: KPW is not set" in sage("config", "view").out
    monkeypatch.setenv("KPW", "hunter2")
    found = json.loads(sage("config", "view", "-o", "json").out)
    assert (found["brokers"], found["from"]) == ("k1:9093", "context prod")
    assert found["kafka"] == {"security.protocol": "SASL_SSL", "sasl.password": "***"}
    assert "hunter2" not in sage("config", "view").out + sage("config", "view", "-o", "yaml").out
    monkeypatch.setenv("SAGE_BOOTSTRAP_SERVERS", "other:1")
    assert "from             SAGE_BOOTSTRAP_SERVERS" in sage("config", "view").out


def test_a_deleted_context_is_gone(sage: Sage) -> None:
    made(sage)
    refused = sage("config", "delete-context", "prod")
    assert (refused.code, refused.err) == (2, "sage: Forget the context prod (k1:9093)? Say so with --yes\n")
    assert sage("config", "delete-context", "prod", "--yes").out == "deleted prod\n"
    found = sage("config", "current-context")
    assert (found.code, found.out) == (4, "")
    assert "choose one with `sage config use-context NAME`" in found.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("set-context", "new"), 2, "new is new and needs --bootstrap-servers"),
        (("set-context", "new", "-b", ""), 2, "can't be empty"),
        (("set-context", "prod", "-b", " "), 2, "can't be empty"),
        (("set-context", "", "-b", "k:9092"), 2, "can't be empty"),
        (("set-context", "new", "-b", "k:1", "-k", "sasl.password=hunter2"), 2, "sasl.password is a secret"),
        (("set-context", "new", "-b", "k:1", "-s", "sasl.password=hunter2"), 2, "give env:NAME, file:PATH or command"),
        (("set-context", "new", "-b", "k:1", "-s", "hunter2"), 2, "--secret takes name=value"),
        (("set-context", "new", "-b", "k:1", "--control-prefix", "a.b"), 3, "control prefix 'a.b'"),
        (("use-context", "nope"), 4, "no context 'nope'"),
        (("delete-context", "nope", "-y"), 4, "no context 'nope'"),
    ],
)
def test_what_is_wrong_changes_nothing(sage: Sage, words: tuple[str, ...], code: int, says: str) -> None:
    found = sage("config", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err
    assert sage("config", "get-contexts", "-o", "json").out == "[]\n"
    assert sage("config", "get-contexts").err.startswith("no contexts; make one")
