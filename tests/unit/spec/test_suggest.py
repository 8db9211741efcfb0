from sage.spec.names import snake_case
from sage.spec.suggest import hint, nearest


def test_nearest_finds_misspelt_and_shortened_names() -> None:
    known = ["collection", "top_k", "filter", "concurrency"]
    assert nearest("topq", known) == "top_k"
    assert nearest("Filtr", known) == "filter"
    assert nearest("conc", known) == "concurrency"
    assert nearest("zzz", known) is None


def test_hint_lists_what_there_is_when_nothing_is_near() -> None:
    assert hint("topq", ["top_k"]) == "did you mean top_k?"
    assert hint("zzz", ["b", "a"], what="options") == "options: a, b"
    assert hint("zzz", []) == "there are none"
    assert hint("qqq", [f"name{n}" for n in range(10)], what="names").endswith(" and 2 more")


def test_class_names_become_the_registered_names() -> None:
    names = {
        "DenseRetriever": "dense_retriever",
        "QAPromptor": "qa_promptor",
        "OpenAIGenerator": "openai_generator",
        "BM25Retriever": "bm25_retriever",
        "LongTermMemory": "long_term_memory",
        "clean_up": "clean_up",
        "_clean": "clean",
    }
    assert {name: snake_case(name) for name in names} == names
