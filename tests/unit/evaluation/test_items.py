import random

from speechllm.data.prepare import read_corpus
from speechllm.data.records import Record, Translation
from speechllm.evaluation.items import choose
from speechllm.tasks import TaskTag


def ids(choice, tag: str) -> list[str]:
    return [item.id for item in choice.items(TaskTag.parse(tag))]


def test_both_directions_of_a_record_count(corpus):
    choice = choose(read_corpus(corpus, "test"), "test", num_items=100, seed=0)
    assert len(ids(choice, "[AST English French]")) == len(ids(choice, "[AST French English]")) == 9
    assert sorted(ids(choice, "[ASR English]")) == sorted(ids(choice, "[ASR French]"))
    item = choice.items(TaskTag.parse("[AST French English]"))[0]
    assert (item.language, item.target_language) == ("fr", "en")


def test_the_choice_depends_on_the_seed_and_not_on_the_order(corpus):
    records = list(read_corpus(corpus, "test"))
    chosen = ids(choose(records, "test", num_items=4, seed=0), "[ASR English]")
    random.Random(0).shuffle(records)
    assert ids(choose(records, "test", num_items=4, seed=0), "[ASR English]") == chosen
    assert ids(choose(records, "test", num_items=4, seed=1), "[ASR English]") != chosen


def test_each_task_gets_its_number_of_items_where_few_have_what_it_needs():
    """One record in ten has sound, one in seven a translation; ranked first and filtered later, tasks would starve."""
    records = [
        Record(
            f"r{i}", "test", "en", f"text {i}", b"sound" if i % 10 == 0 else None,
            translation=Translation("fr", f"texte {i}") if i % 7 == 0 else None,
        )
        for i in range(2_000)
    ]  # fmt: skip
    choice = choose(records, "test", num_items=20, seed=0)
    assert len(ids(choice, "[ASR English]")) == len(ids(choice, "[TTS English]")) == 20
    assert len(ids(choice, "[MT English French]")) == len(ids(choice, "[AST English French]")) == 20
    with_sound = choose([r for r in records if r.audio is not None], "test", num_items=20, seed=0)
    assert ids(choice, "[ASR English]") == ids(with_sound, "[ASR English]")
    assert len(choice.items(TaskTag.parse("[ASR English]"), 5)) == 5


def test_a_smaller_choice_is_the_start_of_a_larger_one(corpus):
    records = list(read_corpus(corpus, "test"))
    small, large = (ids(choose(records, "test", num_items=n, seed=0), "[MT English French]") for n in (3, 6))
    assert large[:3] == small
