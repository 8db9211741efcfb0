"""``sage config``: named clusters, and the one that commands talk to where nothing else says which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import Yes
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.wiring.contexts import Context, Contexts, Reference

ContextName = Annotated[str, Parameter(name="NAME", help="The context's name.")]

_COLUMNS = (
    Column("current", show=lambda value: "*" if value else " "),
    Column("name"),
    Column("bootstrap_servers", "BROKERS"),
    Column("control_prefix", "CONTROL PREFIX", wide=True),
    Column("kafka", "PROPERTIES", wide=True, show=lambda kafka: ", ".join(f"{k}={v}" for k, v in kafka.items()) or "-"),
)


def get_contexts() -> None:
    """List the contexts; `*` marks the current one. Secrets are shown as the references that they are."""
    found = _contexts()
    rows = [_row(found, context) for context in found.all.values()]
    terminal().rows(rows, _COLUMNS, empty="no contexts; make one with `sage config set-context`")


def current_context() -> int:
    """Print the name of the current context. Exits 4 where there is none."""
    from sage.errors import NotFound

    context = _contexts().current_context()
    if context is None:
        raise NotFound("no context is in use; choose one with `sage config use-context NAME`")
    shown = terminal()
    if shown.is_structured:
        shown.data({"name": context.name})
    else:
        shown.line(context.name)
    return 0


def use_context(name: ContextName, /) -> None:
    """Make a context the current one."""
    from sage.wiring.contexts import write_contexts

    write_contexts(_contexts().using(name))
    _said(name, f"using {name}")


def set_context(
    name: ContextName,
    /,
    *,
    bootstrap_servers: Annotated[
        str | None, Parameter(name=["--bootstrap-servers", "-b"], help="Kafka brokers, host:port,...")
    ] = None,
    control_prefix: Annotated[
        str | None, Parameter(help="Of the control topics, so that several clusters share brokers.")
    ] = None,
    kafka: Annotated[
        list[str] | None,
        Parameter(
            name=["--kafka", "-k"],
            help="A librdkafka property, name=value; `name=` removes it; may be repeated.",
            consume_multiple=False,
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        Parameter(
            name=["--secret", "-s"],
            help="A secret property by reference: name=env:NAME, name=file:PATH or name=command:LINE; may be repeated.",
            consume_multiple=False,
        ),
    ] = None,
    use: Annotated[bool, Parameter(help="Make it the current one.")] = False,
) -> None:
    """Make a context, or change what is named of one. The first one becomes the current one."""
    from sage.wiring.contexts import Context, write_contexts

    if not name.strip() or (bootstrap_servers is not None and not bootstrap_servers.strip()):
        raise UsageError("config set-context: NAME and --bootstrap-servers can't be empty")
    found = _contexts()
    before = found.all.get(name)
    if before is None and bootstrap_servers is None:
        raise UsageError(f"config set-context: {name} is new and needs --bootstrap-servers")
    context = Context(
        name,
        bootstrap_servers or (before.bootstrap_servers if before else ""),
        control_prefix if control_prefix is not None else (before.control_prefix if before else ""),
        _changed(dict(before.kafka) if before else {}, kafka or (), secret or ()),
    )
    _check_prefix(context.control_prefix)
    found = found.with_context(context)
    write_contexts(found.using(name) if use else found)
    _said(name, f"{'made' if before is None else 'changed'} {name}")


def delete_context(name: ContextName, /, *, yes: Yes = False) -> None:
    """Forget a context. The cluster itself is left alone."""
    from sage.wiring.contexts import write_contexts

    found = _contexts()
    kept = found.without(name)
    terminal().confirm(f"Forget the context {name} ({found.all[name].bootstrap_servers})?", yes=yes)
    write_contexts(kept)
    _said(name, f"deleted {name}")


def view() -> None:
    """Show the brokers that commands would talk to from here and why, and the file of contexts."""
    import os

    from sage import app
    from sage.cli.options import DEFAULT_DATA_DIR
    from sage.errors import SageError

    found = _contexts()
    fields: dict[str, Any] = {"file": str(found.path), "current_context": found.current}
    try:
        brokers = app.brokers(None, DEFAULT_DATA_DIR)
        fields |= {"brokers": brokers.address, "from": brokers.origin}
        fields |= {"control_topics": brokers.control_topics.prefix, "kafka": app.masked_properties(brokers.config)}
    except SageError as error:
        fields["brokers"] = str(error)
    fields["variables"] = sorted(name for name in os.environ if name.startswith("SAGE_"))
    shown = terminal()
    if shown.is_structured:
        shown.data({**fields, "contexts": [_row(found, context) for context in found.all.values()]})
        return
    shown.details(fields)
    for context in found.all.values():
        shown.line()
        shown.details({**context.as_dict(), "kafka": [f"{name}={value}" for name, value in context.kafka.items()]})


def _contexts() -> Contexts:
    from sage.wiring.contexts import read_contexts

    return read_contexts()


def _row(found: Contexts, context: Context) -> dict[str, Any]:
    return {"current": context.name == found.current, **context.as_dict()}


def _changed(
    properties: dict[str, str | Reference], kafka: tuple[str, ...] | list[str], secret: tuple[str, ...] | list[str]
) -> dict[str, str | Reference]:
    from sage.errors import InvalidTopology
    from sage.wiring.contexts import Reference, checked_property

    for option, texts in (("--kafka", kafka), ("--secret", secret)):
        for text in texts:
            name, found, value = text.partition("=")
            if not found or not name:
                raise UsageError(f"config set-context: {option} takes name=value")
            if not value:
                properties.pop(name, None)
                continue
            try:
                properties[name] = checked_property(name, value) if option == "--kafka" else Reference.parse(value)
            except InvalidTopology as error:
                # What was typed may be the secret itself: it is not repeated.
                raise UsageError(f"config set-context: {option} {name}: {error.message}") from error
    return properties


def _check_prefix(prefix: str) -> None:
    from sage.cluster.names import ControlTopics

    if prefix:
        ControlTopics(prefix)


def _said(name: str, line: str) -> None:
    shown = terminal()
    if shown.is_structured:
        shown.data({"name": name})
    else:
        shown.line(line)
