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
