from sage.graph import StreamBuilder
from sage.graph.mermaid import to_mermaid


def test_a_topology_is_drawn() -> None:
    env = StreamBuilder("qa")
    branches = env.from_topic("questions").route({"long": bool})
    branches.long.union(branches.other).to("answers")
    assert to_mermaid(env.build()) == (
        "flowchart LR\n"
        '  s0(["from_topic<br/>topic questions"])\n'
        '  s1{"route"}\n'
        '  s2(("union"))\n'
        '  s3(["to<br/>topic answers"])\n'
        "  s0 --> s1\n"
        "  s1 -- long --> s2\n"
        "  s1 -- other --> s2\n"
        "  s2 --> s3\n"
    )
