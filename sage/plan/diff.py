"""What is different between two plans of one topology: what is made, what is changed, and what that does to order and
state. Pure; either plan may be a stored one whose code was not imported.

``handover`` says from the same two plans what has to drain and to be moved before the new one can take over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sage.graph.topology import Step
from sage.model.names import changelog_topic, edge_topic, journal_topic, retry_topic
from sage.plan.encoding import plan_json
from sage.plan.plan import Plan, Stage

Mark = Literal["+", "-", "~", ">"]
Kind = Literal["step", "topic", "group", "setting"]

REPARTITION: Final = "--repartition"
ALLOW_ORPHANS: Final = "--allow-orphans"
ALLOW_STATE_CHANGE: Final = "--allow-state-change"

_NO_CHANGE: Final = "no topic or state change"


@dataclass(frozen=True, slots=True)
class Entry:
    """One difference.

    Attributes:
        mark: ``+`` new, ``-`` gone, ``~`` changed, ``>`` renamed.
        kind: of what.
        name: of the step, topic, group, or (of a setting) of the topology.
        text: what is different: ``retrieve.config.top_k 2 -> 3``.
        effect: what that does to order, state and data; empty where it does nothing to them.
        needs: the flag without which it is refused; empty where it needs none.
    """

    mark: Mark
    kind: Kind
    name: str
    text: str
    effect: str = ""
    needs: str = ""

    def __str__(self) -> str:
        parts = [f"{self.mark} {self.text}", self.effect, f"needs {self.needs}" if self.needs else ""]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The differences, in the order of the new plan's steps.

    Attributes:
        name: the topology.
        entries: one for each.
        moves: old name -> new name, of steps that the new plan renames.
        restarts: steps of the new plan that run in both and do not do the same: they are started anew.
        created: the whole topology is new.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    moves: Mapping[str, str] = field(default_factory=dict)
    restarts: tuple[str, ...] = ()
    created: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether both plans do the same."""
        return not self.entries

    @property
    def needs(self) -> frozenset[str]:
        """The flags without which the new plan is refused."""
        return frozenset(entry.needs for entry in self.entries if entry.needs)

    def count(self, mark: Mark, kind: Kind) -> int:
        """How many things of a kind are new, gone, changed, renamed."""
        return sum((entry.mark, entry.kind) == (mark, kind) for entry in self.entries)

    def summary(self) -> str:
        """One line: ``+ 4 steps, + 5 topics``; ``no changes``."""
        found = []
        for kind, one in (("step", "step"), ("topic", "topic"), ("group", "group"), ("setting", "setting")):
            for mark in ("+", "~", ">", "-"):
                number = self.count(mark, kind)  # type: ignore[arg-type] # both are literals of the tuples above
                if number:
                    found.append(f"{mark} {number} {one}{'' if number == 1 else 's'}")
        return ", ".join(found) or "no changes"

    def text(self) -> str:
        """All entries, a line each, and what is restarted."""
        if self.is_empty:
            return "no changes"
        restart = ""
        if self.restarts and not self.created:
            number = len(self.restarts)
            restart = f"rolling restart of {number} step{'' if number == 1 else 's'}"
        harmless = restart and not any(entry.effect or entry.needs for entry in self.entries)
        if len(self.entries) == 1 and restart:
            return "; ".join(part for part in (str(self.entries[0]), _NO_CHANGE if harmless else "", restart) if part)
        lines = [str(entry) for entry in self.entries]
        if restart:
            tail = f"{restart}: {', '.join(self.restarts)}"
            lines.append(f"  {_NO_CHANGE}; {tail}" if harmless else f"  {tail}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For ``-o json`` and saved plans."""
        return {
            "name": self.name,
            "created": self.created,
            "changes": [
                {
                    "mark": entry.mark, "kind": entry.kind, "name": entry.name, "text": entry.text,
                    "effect": entry.effect, "needs": entry.needs,
                }
                for entry in self.entries
            ],
            "moves": dict(self.moves),
            "restarts": list(self.restarts),
            "needs": sorted(self.needs),
        }  # fmt: skip


def moves_of(old: Plan, new: Plan) -> dict[str, str]:
    """Old name -> new name of the steps that are renamed.

    ``moved:`` of the new plan says it; what was renamed by an earlier deploy is done. Going back to a version from
    before a rename, the old plan's says it. Of several that go to one step the first does: state has one origin.
    """
    given = {**{after: before for before, after in old.topology.moved.items()}, **new.topology.moved}
    origins: dict[str, str] = {}
    for before, after in given.items():
        is_renamed = before in old.topology.by_name and before not in new.topology.by_name
        if is_renamed and after in new.topology.by_name and after not in old.topology.by_name:
            origins.setdefault(after, before)
    return {before: after for after, before in origins.items()}


def renamed_topics(plan: Plan, moves: Mapping[str, str]) -> dict[str, str]:
    """Old name -> new name of the topics that hang on renamed steps."""
    found: dict[str, str] = {}
    name = plan.name
    for before, after in moves.items():
        for topic_of in (retry_topic, journal_topic, changelog_topic):
            found[topic_of(name, before)] = topic_of(name, after)
        for stage in plan.stages:
            for output in stage.outputs:
                if output.owned and output.step == before:
                    found[output.topic] = edge_topic(name, after, output.branch)
    return found


def diff_plans(old: Plan | None, new: Plan, *, code_changed: frozenset[str] = frozenset()) -> PlanDiff:
    """What deploying ``new`` over ``old`` changes.

    Args:
        old: what is deployed; ``None`` where nothing is.
        new: what is to be.
        code_changed: steps whose code differs in what the plan does not see, such as a function that they call.
    """
    if old is None:
        entries = [
            Entry("+", "step", step.name, f"step {step.name} ({_described(step)})") for step in new.topology.steps
        ]
        entries += [Entry("+", "topic", topic.name, f"topic {topic.name}") for topic in new.topics]
        return PlanDiff(new.name, tuple(entries), created=True)
    return _Comparing(old, new, code_changed).diff()


def _described(step: Step) -> str:
    return "topic" if step.is_topic else step.kind


class _Comparing:
    """One comparison."""

    def __init__(self, old: Plan, new: Plan, code_changed: frozenset[str]) -> None:
        self.old = old
        self.new = new
        self.code_changed = code_changed
        self.moves = moves_of(old, new)
        self.before = {after: before for before, after in self.moves.items()}
        self.old_steps = {step["name"]: step for step in plan_json(old)["steps"]}
        self.new_steps = {step["name"]: step for step in plan_json(new)["steps"]}

    def diff(self) -> PlanDiff:
        settings = list(self._settings())
        changed: set[str] = set()
        entries: list[Entry] = []
        for name in self.new_steps:
            found = list(self._step(name))
            entries += found
            if name in self.code_changed or any(entry.mark in "~>" for entry in found):
                changed.add(name)
        entries += self._removed()
        entries += self._fusion()
        entries += self._topics()
        entries += settings
        restarted = [
            step.name
            for stage in self.new.stages
            for step in stage.steps
            if self.before.get(step.name, step.name) in self.old_steps
            and (settings or any(each.name in changed for each in stage.steps))
        ]
        return PlanDiff(self.new.name, tuple(entries), self.moves, tuple(restarted))

    # ------------------------------------------------------------------------------------------- steps

    def _step(self, name: str) -> Iterator[Entry]:
        new = self.new_steps[name]
        old = self.old_steps.get(self.before.get(name, name))
        if old is None:
            yield self._added(self.new.topology.by_name[name])
            return
        if name in self.before:
            yield Entry(">", "step", name, f"step {old['name']} -> {name}", self._renamed(name))
        for text, effect, needs in self._changes(name, old, new):
            yield Entry("~", "step", name, f"{name}.{text}", effect, needs)

    def _added(self, step: Step) -> Entry:
        effect = ""
        stage = self.new.by_name.get(step.name)
        there = {topic.name for topic in self.old.topics} | set(self.old.external)
        replaced = {i.topic for old in self.old.stages if self._stops_reading(old) for i in old.inputs}
        if stage is not None:
            history = [i.topic for i in stage.inputs if i.topic in there - replaced]
            if history:
                effect = f"it starts at the earliest record of {', '.join(history)}"
        return Entry("+", "step", step.name, f"step {step.name} ({_described(step)})", effect)

    def _renamed(self, name: str) -> str:
        stage = self.new.by_name.get(name)
        if stage is None:
            return "its edge drains first"
        kept = ["offsets"] if stage.group else ["positions"]
        if stage.changelog_topic:
            kept.append("state")
        return f"{' and '.join(kept)} go along; what is on its way is drained first"

    def _changes(self, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        """Text, effect and flag of everything in which a step differs."""
        if old["kind"] != new["kind"]:
            yield f"kind {old['kind']} -> {new['kind']}", "", ""
        if old["target"] != new["target"]:
            yield f"{new['kind']} {old['target']} -> {new['target']}", *self._rekeyed(name)
        elif old["fingerprint"] != new["fingerprint"] or name in self.code_changed:
            yield "code changed", *self._rekeyed(name)
        for what in ("config", "options"):
            for path, before, after in _differences(old[what], new[what]):
                place = f"{what}.{path}" if what == "config" else path
                yield f"{place} {_shown(before)} -> {_shown(after)}", "", ""
        before, after = self._inputs(old, renamed=True), self._inputs(new, renamed=False)
        if before != after:
            yield f"from {', '.join(before) or 'nothing'} -> {', '.join(after) or 'nothing'}", *self._rewired(name)
        if old["branches"] != new["branches"] or old["default_branch"] != new["default_branch"]:
            yield from ((text, "", "") for text in _branches(old, new))
        yield from self._keyed(name, old, new)

    def _inputs(self, step: Mapping[str, Any], *, renamed: bool) -> list[str]:
        found = []
        for given in step["inputs"]:
            name = self.moves.get(given["step"], given["step"]) if renamed else given["step"]
            found.append(name if given["branch"] is None else f"{name}.{given['branch']}")
        return found

    def _keyed(self, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        if old["state"] != new["state"]:
            reason = state_problem(old["state"], new["state"])
            if reason is None:
                yield "state changed", "what is stored can be read", ""
            else:
                yield "state changed", f"what is stored can't be read: {reason}", ALLOW_STATE_CHANGE
        yield from self._other_keys(name, old, new)
        if old["ttl"] != new["ttl"]:
            yield f"ttl {_shown(old['ttl'])} -> {_shown(new['ttl'])}", "it counts for what is stored too", ""
        if old["on_timer"] != new["on_timer"]:
            gone = new["on_timer"] is None
            yield "on_timer changed", "timers that are set are not heard any more" if gone else "", ""
        if old["max_hops"] != new["max_hops"]:
            yield f"max_hops {old['max_hops']} -> {new['max_hops']}", "", ""

    def _other_keys(
        self, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, str]]:  # fmt: skip
        """A step with state whose keys come from other steps than before, that don't give the same."""
        if old["kind"] != "process" or new["kind"] != "process":
            return
        before = {self.moves.get(each, each): code for each, code in _keyed_by(old, self.old_steps).items()}
        after = _keyed_by(new, self.new_steps)
        gone = {each: code for each, code in before.items() if each not in after}
        come = {each: code for each, code in after.items() if each not in before}
        if set(gone.values()) - set(come.values()) and set(come.values()) - set(gone.values()):
            text = f"keys of {', '.join(gone)} -> {', '.join(come)}"
            yield text, f"records get other keys: {name} keeps its state under the old ones", ALLOW_STATE_CHANGE

    def _rekeyed(self, name: str) -> tuple[str, str]:
        """What a change of a step's code does to keyed steps behind it."""
        if self.new_steps[name]["kind"] != "key_by":
            return "", ""
        stateful = [step for step in self._keyed_behind(name) if self.before.get(step, step) in self.old_steps]
        if stateful:
            reason = f"records get other keys: {', '.join(stateful)} keeps its state under the old ones"
            return reason, ALLOW_STATE_CHANGE
        return "records get other keys: one key's order holds from here on only", ""

    def _keyed_behind(self, name: str) -> list[str]:
        """Steps with state that read what ``name`` keys."""
        found: list[str] = []
        ahead, seen = [name], {name}
        while ahead:
            for step in self.new.topology.consumers(ahead.pop()):
                if step.name in seen:
                    continue
                seen.add(step.name)
                if step.kind == "process":
                    found.append(step.name)
                if step.kind != "key_by":
                    ahead.append(step.name)
        return found

    def _rewired(self, name: str) -> tuple[str, str]:
        stage = self.new.by_name.get(name)
        if stage is None:
            return "", ""
        return "what it reads now is drained first", ""

    def _removed(self) -> Iterator[Entry]:
        for name, step in self.old_steps.items():
            if self.moves.get(name, name) in self.new_steps:
                continue
            stage = self.old.by_name.get(name)
            effect, needs = "", ""
            if stage is not None and stage.group:
                left = [f"group {stage.group}"]
                left += [f"state {stage.changelog_topic}"] if stage.changelog_topic else []
                effect = (
                    f"its input is drained first; {' and '.join(left)} would be orphaned (or say moved: {name}: NEW)"
                )
                needs = ALLOW_ORPHANS
            yield Entry("-", "step", name, f"step {name} ({step['kind']})", effect, needs)

    def _stops_reading(self, old: Stage) -> bool:
        """Whether a stage is gone, or reads something else."""
        new = self.new.by_name.get(self.moves.get(old.name, old.name))
        return new is None or {i.topic for i in old.inputs} != {i.topic for i in new.inputs}

    def _fusion(self) -> Iterator[Entry]:
        """Steps that are in both plans and begin a stage in one of them only."""
        for step in self.new.topology.steps:
            old_name = self.before.get(step.name, step.name)
            was, shall = old_name in self.old.by_name, step.name in self.new.by_name
            if old_name not in self.old_steps or was == shall or step.kind == "union" or step.is_topic:
                continue
            if shall:
                yield Entry("~", "group", step.name, f"{step.name} has a stage of its own now, fused before")
            else:
                edge = next((i.topic for i in self.old.by_name[old_name].inputs), "")
                yield Entry(
                    "~", "group", step.name, f"{step.name} is fused onto the step before it", f"{edge} is drained first"
                )

    # ------------------------------------------------------------------------------------------ topics

    def _topics(self) -> Iterator[Entry]:
        names = renamed_topics(self.old, self.moves)
        old = {names.get(topic.name, topic.name): topic for topic in self.old.topics}
        new = {topic.name: topic for topic in self.new.topics}
        private = {
            name
            for stage in self.new.stages
            for name in (stage.retry_topic, stage.journal_topic, stage.changelog_topic)
        }
        for name, topic in new.items():
            if name not in old:
                yield Entry("+", "topic", name, f"topic {name}")
                continue
            was = old[name].partitions
            # A stage's own topics are as wide as what it reads, and are told with that.
            if name not in private and topic.partitions != was:
                yield self._partitions(name, was, topic.partitions)
        for name in old.keys() - new.keys():
            yield Entry("-", "topic", name, f"topic {name} is not used any more", "its records stay until it is purged")

    def _partitions(self, topic: str, was: int, now: int) -> Entry:
        text = f"topic {topic} {was} -> {now} partitions"
        if topic in self.new.given:
            return Entry("~", "topic", topic, text, "it stays as it is: its readers may rely on its partitions")
        if now < was:
            return Entry("~", "topic", topic, text, f"it keeps {was}: Kafka takes no partitions away")
        readers = [stage for stage in self.new.stages if any(i.topic == topic for i in stage.inputs)]
        if not any(is_ordered(stage) for stage in readers):
            return Entry("~", "topic", topic, text, "it grows in place: nobody relies on its order")
        state = any(stage.changelog_topic for stage in readers)
        effect = "keys move to other partitions: it is drained, and grows then" + (
            ", and its readers' state is moved along" if state else ""
        )
        return Entry("~", "topic", topic, text, effect, REPARTITION)

    def _settings(self) -> Iterator[Entry]:
        old, new = plan_json(self.old), plan_json(self.new)
        for what in ("guarantee", "defaults", "memory", "kafka", "topic_settings"):
            for path, before, after in _differences(old[what], new[what]):
                name = f"{'topics' if what == 'topic_settings' else what}{'.' if path else ''}{path}"
                yield Entry("~", "setting", self.new.name, f"{name} {_shown(before)} -> {_shown(after)}")


def _keyed_by(step: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """The steps that give the keys of what ``step`` reads, each with what tells its code."""
    found: dict[str, tuple[str, str]] = {}
    ahead, seen = [step], {step["name"]}
    while ahead:
        for given in ahead.pop()["inputs"]:
            upstream = steps[given["step"]]
            if upstream["name"] in seen:
                continue
            seen.add(upstream["name"])
            if upstream["kind"] == "key_by":
                found[upstream["name"]] = upstream["target"], upstream["fingerprint"]
            else:
                ahead.append(upstream)
    return found


def is_ordered(stage: Stage) -> bool:
    """Whether it matters to a stage which partition a key is in."""
    return bool(stage.changelog_topic) or stage.ordering != "none"


def state_problem(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    """Why state that was written by one model can't be read by another; ``None`` if it can.

    Both are as in a plan's JSON. A mapping reads everything; a model reads what has all that it requires.
    """
    if new is None or new["schema"] is None:
        return None
    if old is None or old["schema"] is None:
        return f"{new['model']} needs fields that a mapping does not promise" if new["schema"].get("required") else None
    was, now = old["schema"].get("properties", {}), new["schema"].get("properties", {})
    for name in new["schema"].get("required", ()):
        if name not in was:
            return f"{name} is required and was not there"
    for name, field_schema in now.items():
        if name in was and _bare(was[name]) != _bare(field_schema):
            return f"{name} was {_bare(was[name])} and is {_bare(field_schema)}"
    if old["schema"].get("$defs", {}) != new["schema"].get("$defs", {}):
        return "the models inside it differ"
    forbidden = new["schema"].get("additionalProperties") is False
    gone = sorted(was.keys() - now.keys())
    return f"{', '.join(gone)} is stored and not allowed any more" if forbidden and gone else None


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A field's schema without what is for people."""
    return {key: value for key, value in schema.items() if key not in {"title", "description", "default", "examples"}}


def _branches(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    was = {each["name"]: each for each in old["branches"]}
    now = {each["name"]: each for each in new["branches"]}
    yield from (f"branch {name} is new" for name in now.keys() - was.keys())
    yield from (f"branch {name} is gone" for name in was.keys() - now.keys())
    yield from (f"branch {name} takes other records" for name in now.keys() & was.keys() if now[name] != was[name])
    if was.keys() == now.keys() and list(was) != list(now):
        yield "branches are asked in another order"
    if old["default_branch"] != new["default_branch"]:
        yield f"default {old['default_branch']} -> {new['default_branch']}"


_ABSENT: Final = object()


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: path, before, after."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
    elif old is _ABSENT and isinstance(new, Mapping) and new:
        yield from _differences({}, new, path)
    elif new is _ABSENT and isinstance(old, Mapping) and old:
        yield from _differences(old, {}, path)
    elif old != new:
        yield path, old, new


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "unset"
    return "none" if value is None else str(value)
