"""Named clusters: kept in a file, with secrets by reference, and found after the option and the variable."""

from __future__ import annotations

import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import InvalidTopology, MissingVariable, NotFound, SageError, Unreachable
from sage.wiring.brokers import find_brokers
from sage.wiring.contexts import Context, Contexts, Reference, contexts_path, read_contexts, write_contexts

PROD = Context(
    "prod",
    "k1:9093,k2:9093",
    "team-a",
    {"security.protocol": "SASL_SSL", "sasl.password": Reference("env", "KAFKA_PASSWORD")},
)


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    path = tmp_path / "settings" / "config.yaml"
    monkeypatch.setenv("SAGE_CONFIG", str(path))
    for name in ("SAGE_BOOTSTRAP_SERVERS", "SAGE_CONTROL_PREFIX", "KAFKA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return {"SAGE_CONFIG": str(path)}


names = st.text("abcdefgh-_.0123456789", min_size=1, max_size=12)
values = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=20)
properties = st.dictionaries(
    names.map(lambda name: f"x.{name}"),
    values | st.builds(Reference, st.sampled_from(["env", "file", "command"]), values),
    max_size=4,
)
contexts = st.builds(Context, names, values, names | st.just(""), properties)


@given(all_of_them=st.lists(contexts, max_size=4))
def test_what_is_written_is_read_again(all_of_them: list[Context], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("contexts") / "config.yaml"
    found = Contexts(path)
    for context in all_of_them:
        found = found.with_context(context)
    write_contexts(found)
    assert read_contexts({"SAGE_CONFIG": str(path)}) == found


def test_the_file_is_for_its_owner_alone(environ: Mapping[str, str]) -> None:
    write_contexts(Contexts(contexts_path(environ)).with_context(PROD))
    path = contexts_path(environ)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["config.yaml"]


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert contexts_path({}) == tmp_path / ".config" / "sage" / "config.yaml"
    assert contexts_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/sage/config.yaml")
    assert contexts_path({"XDG_CONFIG_HOME": "/x", "SAGE_CONFIG": "~/mine.yaml"}) == tmp_path / "mine.yaml"
    with pytest.raises(SageError, match="~nobody-here/x: there is no such home folder; set SAGE_CONFIG"):
        contexts_path({"SAGE_CONFIG": "~nobody-here/x"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("contexts: [", "is no YAML"),
        ("just text", "must hold `current-context` and `contexts`"),
        ("contexts: {a: {}}", "contexts.a: bootstrap-servers is missing"),
        ("contexts: {a: {bootstrap-server: x}}", "bootstrap-servers is missing"),
        ("contexts: {a: {bootstrap-servers: x, kafak: {}}}", "contexts.a.kafak: unknown field; did you mean kafka?"),
        ("contexts: {a: {bootstrap-servers: x, kafka: 3}}", "contexts.a.kafka: must hold properties"),
        ("contexts: {a: {bootstrap-servers: x, kafka: {sasl.password: hunter2}}}", "sasl.password is a secret"),
        ("contexts: {a: {bootstrap-servers: x, kafka: {k: {vault: y}}}}", "contexts.a.kafka.k: not a reference"),
        ("contexts: {a: {bootstrap-servers: x, kafka: {k: {env: y, file: z}}}}", "takes one of env, file and command"),
        ("current: a", "current: unknown field; did you mean current-context?"),
    ],
)
def test_a_file_that_is_wrong_says_where(environ: Mapping[str, str], text: str, says: str) -> None:
    path = contexts_path(environ)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InvalidTopology) as caught:
        read_contexts(environ)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "hunter2" not in str(caught.value)


def test_secrets_come_from_where_they_are_referred_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the file\n")
    command = f"{sys.executable} -c \"import os; print(os.environ['WHO'])\""
    found = Context(
        "a",
        "k:9092",
        kafka={
            "sasl.username": "ann",
            "a.password": Reference("env", "WHO"),
            "b.password": Reference("file", str(tmp_path / "secret")),
            "c.password": Reference("command", command),
        },
    ).properties({"WHO": "of the variable"})
    assert found == {
        "sasl.username": "ann",
        "a.password": "of the variable",
        "b.password": "of the file",
        "c.password": "of the variable",
    }


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        (Reference("env", "NOT_SET"), MissingVariable, "NOT_SET is not set"),
        (Reference("file", "/no/such/file"), NotFound, "no file /no/such/file"),
        (Reference("file", "/"), SageError, "cannot read /"),
        (Reference("command", "no-such-program-here x"), NotFound, "no program for `no-such-program-here x`"),
        (Reference("command", f"{sys.executable} -c 'print(1); exit(7)'"), SageError, "ended with exit code 7"),
        (Reference("command", "unclosed 'quote"), SageError, "gave no secret"),
    ],
)
def test_a_secret_that_cannot_be_had_names_its_place(reference: Reference, error: type[SageError], says: str) -> None:
    with pytest.raises(error) as caught:
        Context("a", "k:9092", kafka={"sasl.password": reference}).properties({})
    assert says in str(caught.value)
    assert str(caught.value).startswith("context 'a' kafka.sasl.password: ")


def test_choosing_and_forgetting(tmp_path: Path) -> None:
    found = Contexts(tmp_path / "c").with_context(PROD).with_context(Context("dev", "localhost:9092"))
    assert found.current == "prod"
    assert found.using("dev").current_context() == Context("dev", "localhost:9092")
    assert found.using("dev").without("dev").current is None
    assert found.without("dev").current == "prod"
    with pytest.raises(NotFound, match="no context 'prd'; did you mean prod"):
        found.using("prd")


def test_the_order_in_which_brokers_are_found(
    environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    write_contexts(Contexts(contexts_path(environ)).with_context(PROD))
    file = tmp_path / "client.properties"
    file.write_text("client.id=me\nsecurity.protocol=SASL_PLAINTEXT\n")

    found = find_brokers(None, tmp_path, file)
    assert (found.address, found.origin) == ("k1:9093,k2:9093", "context prod")
    assert found.config == {"security.protocol": "SASL_PLAINTEXT", "sasl.password": "hunter2", "client.id": "me"}
    assert found.control_topics.topologies == "team-a.topologies"
    assert "hunter2" not in repr(found)

    monkeypatch.setenv("SAGE_CONTROL_PREFIX", "mine")
    assert found.control_topics.prefix == "mine"

    monkeypatch.setenv("SAGE_BOOTSTRAP_SERVERS", "variable:1")
    found = find_brokers(None, tmp_path)
    assert (found.address, found.config) == ("variable:1", {}), "a context's password is for its own brokers"
    found = find_brokers("flag:1", tmp_path)
    assert (found.address, found.config) == ("flag:1", {})

    monkeypatch.delenv("SAGE_BOOTSTRAP_SERVERS")
    with pytest.raises(Unreachable, match="no broker is named"):
        find_brokers(None, tmp_path, contexts=False)


def test_a_context_that_is_gone_is_an_error_and_not_another_cluster(environ: Mapping[str, str], tmp_path: Path) -> None:
    write_contexts(Contexts(contexts_path(environ), "gone", {"prod": PROD}))
    with pytest.raises(NotFound, match="no context 'gone'"):
        find_brokers(None, tmp_path)
