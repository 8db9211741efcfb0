from sage.graph import StreamBuilder
from sage.plan.explain import explain, explain_rows
from sage.plan.planner import compile_plan


def clean(value: str) -> str:
    return value


async def ask(value: str) -> str:
    return value


def test_the_plan_is_explained_stage_by_stage() -> None:
    env = StreamBuilder("qa")
    env.from_topic("questions").map(clean, partitions=4).filter(bool, name="keep").map(ask, concurrency=8).to("answers")
    plan = compile_plan(env.build())
    assert explain(plan) == (
        "qa: 5 steps in 2 stages, 5 topics\n"
        "\n"
        "clean + keep  [sync]\n"
        "  reads   questions\n"
        "  writes  qa.keep (4 partitions)\n"
        "  - clean begins a stage: it reads the topic questions\n"
        "  - keep is fused onto clean: sync, stateless, no options of its own, its only reader\n"
        "  - runs in batches on the consumer's thread: its code doesn't wait\n"
        "\n"
        "ask  [async, 8 at once]\n"
        "  reads   qa.keep\n"
        "  writes  answers (1 partition)\n"
        "  - ask begins a stage: it is async\n"
        "  - runs up to 8 calls at once per worker: ask is async\n"
        "  - records of one key stay in order, others overtake each other\n"
        "  - up to 4 workers share it: its input has 4 partitions\n"
    )
    rows = explain_rows(plan)
    assert [(row.stage, row.steps, row.partitions) for row in rows] == [
        ("clean", ("clean", "keep"), 4),
        ("ask", ("ask",), 1),
    ]


def test_options_without_effect_are_told() -> None:
    env = StreamBuilder("qa")
    env.from_topic("questions").map(clean, concurrency=8)
    assert "concurrency 8 has no effect on it; say blocking=True if it does wait" in explain(compile_plan(env.build()))


def test_a_time_out_that_nothing_can_keep_is_told() -> None:
    env = StreamBuilder("qa")
    env.from_topic("questions").map(clean, timeout=3)
    assert "its timeout has no effect: nothing ends code on that thread" in explain(compile_plan(env.build()))


def test_a_step_with_state_keeps_the_order_of_its_keys_whatever_the_defaults_say() -> None:
    env = StreamBuilder("qa", defaults={"ordering": "none"})
    keyed = env.from_topic("questions").map(ask, name="free").key_by("user", name="keyed")
    keyed.process(ask, name="count")
    plan = compile_plan(env.build())
    assert {name: plan.by_name[name].ordering for name in ("free", "count")} == {"free": "none", "count": "key"}
    assert "records of one key stay in order, as its state is theirs in turn" in explain(plan)
