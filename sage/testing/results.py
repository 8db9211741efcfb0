"""What a driven topology has left behind on its topics, decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sage.errors import DecodeFailure, InvalidTopology, NotFound, UnknownName
from sage.model import dead_letter_headers as names
from sage.model.partition import TopicPartition
from sage.model.record import Headers, Record
from sage.plan.plan import Plan, Stage
from sage.ports import RawMessage
from sage.runtime.state.envelope import Envelope
from sage.runtime.steps.codec import BYTES_MARK, decoder
from sage.runtime.steps.outputs import record_id_of
from sage.spec.suggest import hint
from sage.testing.broker import InMemoryClients


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """One dead letter.

    Attributes:
        value, key: the bytes of the record that failed, as they were.
        step: the step that failed.
        error: the exception's class: its name without the module, ``KeyError``.
        message: what the exception said.
        attempts: how often it was tried.
        headers: all of them: the record's own, then ``__connect.errors.*``.
    """

    value: bytes | None
    key: bytes | None
    step: str
    error: str
    message: str
    attempts: int
    headers: Headers

    @classmethod
    def of(cls, message: RawMessage) -> DeadRecord:
        """A dead letter as it stands on its topic."""
        headers = message.headers() or []
        text = {name: (value or b"").decode(errors="replace") for name, value in headers}
        return cls(
            message.value(),
            message.key(),
            text.get(names.STAGE, ""),
            text.get(names.EXCEPTION, "").rpartition(".")[2],
            text.get(names.MESSAGE, ""),
            int(text.get(names.ATTEMPTS, "0")),
            headers,
        )


class Results:
    """Reads a plan's topics and groups on the in-memory broker."""

    def __init__(self, plan: Plan, clients: InMemoryClients) -> None:
        self._plan = plan
        self._clients = clients

    def records(self, step: str, branch: str | None) -> list[Record[Any]]:
        """What stands on a step's output topics.

        Raises:
            UnknownName: nobody reads such a branch of the step, so that it has no topic.
        """
        found: list[Record[Any]] = []
        places = dict(self._places(step, branch))
        if branch is not None and not places:
            others = {output.branch for stage in self._plan.stages for output in stage.outputs if output.step == step}
            near = hint(branch, [other for other in others if other], what="branches")
            known = near if any(others) else "it has none that is read"
            raise UnknownName(f"{step} gives nothing to a branch {branch!r}; {known}")
        for topic, written in places.items():
            decode = decoder(written)
            found += [_record(message, decode) for message in self._messages(topic)]
        return found

    def topic_of(self, step: str) -> str:
        """The first topic that a step's output stands on."""
        return next(topic for topic, _ in self._places(step, None))

    def _places(self, name: str, branch: str | None) -> Iterator[tuple[str, str]]:
        """(topic, format) of a step's outputs; of a union those of what it unites."""
        step = self._plan.topology.by_name[name]
        if step.kind == "union":
            for given in step.inputs:
                yield from self._places(given.step, given.branch)
            return
        outputs = [output for stage in self._plan.stages for output in stage.outputs]
        if step.is_topic:
            topic = step.config["topic"]
            written = next((o.format for o in outputs if o.topic == topic), step.config.get("format", "json"))
            yield topic, written
            return
        seen: set[str | None] = set()
        for output in sorted(outputs, key=lambda output: not output.owned):  # the same values stand on others too
            wanted = branch is None and (step.kind == "route" or output.branch is None)
            if output.step == name and (wanted or output.branch == branch) and output.branch not in seen:
                seen.add(output.branch)
                yield output.topic, output.format

    def dead_letters(self) -> list[DeadRecord]:
        """The dead letters, in order."""
        return [DeadRecord.of(message) for message in self._messages(self._plan.dead_letter_topic)]

    def state(self, name: str, key: bytes) -> Any:
        """What the changelog of a step says of a key; ``None`` where nothing is kept.

        Raises:
            InvalidTopology: the step keeps no state.
        """
        stage = self._plan.by_name.get(name)
        if stage is None or not stage.changelog_topic:
            raise InvalidTopology(f"step {name!r} keeps no state; process steps do")
        last = next((each for each in reversed(self._messages(stage.changelog_topic)) if each.key() == key), None)
        data = None if last is None else last.value()
        if data is None:
            return None
        state, model = Envelope.decode(data).state, stage.steps[0].state
        if state is None or model is None:
            return state
        return model.model_validate(state, by_alias=True, by_name=True)  # it is kept by its fields' own names

    def committed(self) -> dict[str, dict[TopicPartition, int]]:
        """Committed offsets by stage."""
        return {stage.name: self._clients.committed(stage.group) for stage in self._readers()}

    def lag(self) -> dict[str, int]:
        """Records that stages have still to commit, by stage: those that wait for another try included."""
        admin, lag = self._clients.admin(), {}
        for stage in self._readers():
            infos = admin.describe([*(i.topic for i in stage.inputs), *filter(None, [stage.retry_topic])])
            partitions = [TopicPartition(name, n) for name, info in infos.items() for n in range(info.partitions)]
            ends, committed = admin.end_offsets(partitions), self._clients.committed(stage.group)
            lag[stage.name] = sum(ends[p] - committed.get(p, 0) for p in partitions)
        return lag

    def _readers(self) -> list[Stage]:
        return [stage for stage in self._plan.stages if stage.execution != "source"]

    def _messages(self, topic: str) -> list[Any]:
        try:
            return list(self._clients.messages(topic))
        except NotFound:  # nothing has run yet
            return []


def _record(message: RawMessage, decode: Any) -> Record[Any]:
    headers = message.headers() or []
    data = message.value()
    value: Any = data
    if data is not None and not (headers and headers[-1] == BYTES_MARK):
        try:
            value = decode(data)
        except DecodeFailure:  # somebody sent this on purpose, to see it become a dead letter
            value = data
    return Record(
        value, message.key(), headers, message.timestamp()[1], record_id_of(headers) or "",
        message.topic(), message.partition(), message.offset(),
    )  # fmt: skip
