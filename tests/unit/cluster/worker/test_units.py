"""What is scheduled of a deployment."""

from __future__ import annotations

from dataclasses import replace

from sage.cluster.worker.units import SOURCES, units_of
from tests.unit.cluster.worker.plans import deployment, stage


def test_sources_are_one_unit_and_each_other_stage_is_one() -> None:
    units = units_of(
        deployment(1, stage("files", writes="qa.files"), stage("web", writes="qa.web"),
                   stage("clean", "qa.files qa.web", "qa.clean"), stage("out", "qa.clean", partitions=2))
    )  # fmt: skip
    assert [(unit.name, unit.stages, unit.width, unit.upstream) for unit in units] == [
        (SOURCES, ("files", "web"), 4, ()),
        ("clean", ("clean",), 4, (SOURCES,)),
        ("out", ("out",), 2, ("clean",)),
    ]


def test_what_runs_at_its_caller_is_nobody_elses() -> None:
    units = units_of(deployment(1, stage("files", writes="a"), stage("clean", "a", "b"), caller=("files",)))
    assert [(unit.name, unit.upstream) for unit in units] == [("clean", ())]


def test_a_foreign_topics_width_is_not_known() -> None:
    assert units_of(deployment(1, stage("clean", "orders", partitions=None)))[0].width == 0


def test_units_of_a_loop_don_t_wait_for_each_other() -> None:
    units = units_of(
        deployment(1, stage("ask", "in again", "asked"), stage("judge", "asked", "again done"), stage("end", "done"))
    )
    assert {unit.name: unit.upstream for unit in units} == {"ask": (), "judge": (), "end": ("judge",)}


def test_a_digest_changes_with_what_a_stage_does_and_runs_under() -> None:
    def digest(config: int = 1, **more: object) -> str:
        made = deployment(1, stage("clean", "a", "b", config=config))
        return units_of(replace(made, plan={**made.plan, **more}))[0].digest

    assert digest() == digest()
    assert len({digest(), digest(2), digest(guarantee="exactly_once"), digest(kafka={"linger.ms": 5})}) == 4


def test_a_digest_is_untouched_by_other_stages_and_by_reasons() -> None:
    one = units_of(deployment(1, stage("clean", "a", "b"), stage("out", "b", config=1)))
    other = units_of(deployment(2, stage("clean", "a", "b", reasons=["because"]), stage("out", "b", config=2)))
    assert one[0].digest == other[0].digest
    assert one[1].digest != other[1].digest


def test_labels_are_the_stages() -> None:
    labelled = stage("files", writes="a", options={"labels": {"disk": "a"}})
    assert units_of(deployment(1, labelled))[0].labels == {"disk": "a"}
