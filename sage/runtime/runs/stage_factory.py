"""From a plan to what runs of it in this process: one actor a stage, and one host for its sources."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sage.plan.plan import Plan, Stage
from sage.plan.topics import offsets_partitions
from sage.ports import TopicInfo
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.assembly import assemble_actor, assemble_source, bind_stage
from sage.runtime.runs.world import World
from sage.runtime.sources.source_host import SourceHost
from sage.runtime.steps.stage_context import StageSetting
from sage.runtime.steps.strict_edges import make_strict


class StageFactory:
    """Makes the parts of one plan; each is opened and run by whoever asked for it.

    Args:
        plan: what runs.
        world: what it runs in.
        topics: those of the plan, as ``prepare_topics`` found them.
    """

    def __init__(self, plan: Plan, world: World, topics: Mapping[str, TopicInfo]) -> None:
        self.plan = plan
        self._world = world
        self.partitions = {name: info.partitions for name, info in topics.items()}
        self._ids = {name: info.topic_id for name, info in topics.items()}

    def setting(self, stage: Stage) -> StageSetting:
        """A stage with its steps bound. Raises InvalidTopology or MissingVariable."""
        world = self._world
        steps = bind_stage(self.plan, stage, world.services, world.environ)
        if world.strict_edges:
            make_strict(steps)
        return StageSetting(
            self.plan, stage, steps, self._ids, world.clock, world.tracer, world.worker, partitions=self.partitions
        )

    def actor(self, stage: Stage) -> Actor:
        """The actor of a stage that reads topics, not opened yet. Raises as ``setting``."""
        world = self._world
        return assemble_actor(self.setting(stage), world.clients, world.bridge, world.stores)

    def sources(
        self, *, fresh_epoch: str | None = None, only: Collection[str] | None = None, group: str = ""
    ) -> SourceHost | None:
        """The host of the sources, not opened yet; ``None`` where there are none. Raises as ``setting``.

        Args:
            fresh_epoch: they start at their beginning, under this name; else where they stopped.
            only: these alone; their tasks' places are those of the whole plan.
            group: the group that shares their tasks out; the topology's own unless named.
        """
        stages = [
            stage for stage in self.plan.stages if stage.execution == "source" and (only is None or stage.name in only)
        ]
        if not stages:
            return None
        sources = {stage.name: assemble_source(self.setting(stage)) for stage in stages}
        places = {place: number for place, number in offsets_partitions(self.plan).items() if place[0] in sources}
        return SourceHost(
            self.plan.name, sources, places, self._world.clients, self._world.bridge, fresh_epoch=fresh_epoch,
            group=group,
        )  # fmt: skip
