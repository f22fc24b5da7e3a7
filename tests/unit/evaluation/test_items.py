import random

from speechllm.data.prepare import read_corpus
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


def test_a_smaller_choice_is_the_start_of_a_larger_one(corpus):
    records = list(read_corpus(corpus, "test"))
    small, large = (ids(choose(records, "test", num_items=n, seed=0), "[MT English French]") for n in (3, 6))
    assert large[:3] == small
