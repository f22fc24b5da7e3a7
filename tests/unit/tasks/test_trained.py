"""The record of what a model was trained for: what it covers, how it grows, how it is written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import CheckpointError
from speechllm.tasks import NOTHING, TaskTag, TrainedFor

CODES = ("en", "fr", "de")
TAGS = [
    TaskTag.of(name, source, target)
    for name in ("ASR", "TTS", "AST", "MT", "ASR AST S2ST")
    for source in CODES
    for target in (CODES if name not in ("ASR", "TTS") else ("en",))
    if source != target or name in ("ASR", "TTS")
]


def record(chosen: list[int], longest_seconds: float | None) -> TrainedFor:
    tasks: dict[str, list[str]] = {}
    for tag in (TAGS[i] for i in sorted(chosen)):
        tasks.setdefault(tag.name, []).append(tag.direction)
    return TrainedFor(
        tasks={name: tuple(sorted(found)) for name, found in tasks.items()}, longest_seconds=longest_seconds
    )


# Records are made in the tests: beartype looks at a random item of a sequence, which no strategy may do.
numbers = st.lists(st.integers(0, len(TAGS) - 1), unique=True)
seconds = st.sampled_from([None, 0.5, 4.0])
SOME = TrainedFor(tasks={"ASR": ("en", "fr"), "AST": ("en-fr",), "S2ST": ("en-fr",)}, longest_seconds=4.3)


@given(chosen=numbers, longest=seconds)
def test_writing_and_reading_back(chosen: list[int], longest: float | None):
    made = record(chosen, longest)
    assert TrainedFor.from_manifest(json.loads(json.dumps(made.manifest()))) == made


@given(here=numbers, there=numbers, longest=seconds)
def test_two_trainings_cover_what_either_does(here: list[int], there: list[int], longest: float | None):
    one, other = record(here, longest), record(there, 1.0)
    both = one.joined(other)
    assert dict(both.tasks) == dict(other.joined(one).tasks)
    assert both.joined(one) == both
    assert NOTHING.joined(one).tasks == one.tasks
    for tag in TAGS:
        assert both.covers(tag) == (one.covers(tag) or other.covers(tag))
    assert both.longest_seconds == max((one.longest_seconds or 0, other.longest_seconds or 0)) or None


@given(chosen=numbers)
def test_languages_of_a_task_are_those_that_it_covers(chosen: list[int]):
    made = record(chosen, None)
    for name, directions in made.tasks.items():
        found = {
            TaskTag.of(name, source, target).direction
            for source in made.sources(name)
            for target in made.targets(name, source) or [None]
        }
        assert found == set(directions)
        assert set(made.languages) >= set(made.sources(name))


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("[ASR German]", r"not trained for \[ASR German\]: its ASR knows en, fr$"),
        ("[AST French English]", r"its AST knows en-fr$"),
        ("[TTS English]", r"TTS English\]: it knows ASR \(en, fr\), AST \(en-fr\), S2ST \(en-fr\)$"),
        ("[ASR AST English French]", r"as one chain; its tasks it knows one by one: it knows ASR"),
        ("[ASR AST French English]", r"\[ASR AST French English\]: it knows ASR"),
    ],
)
def test_a_refusal_says_what_there_is(tag: str, said: str):
    assert not SOME.covers(TaskTag.parse(tag))
    line = SOME.why_not(TaskTag.parse(tag))
    assert re.search(said, line)
    assert "\n" not in line


def test_who_learnt_nothing_says_so():
    assert NOTHING.why_not(TaskTag.of("ASR", "en")).endswith("[ASR English], nor for any other task")


@pytest.mark.parametrize(
    "content",
    [
        [], {}, {"tasks": {}}, {"tasks": [], "longest_seconds": None}, {"tasks": {"ASR": "en"}, "longest_seconds": 1},
        {"tasks": {"ASR": [1]}, "longest_seconds": 1}, {"tasks": {}, "longest_seconds": "long"},
        {"tasks": {}, "longest_seconds": 0}, {"tasks": {}, "longest_seconds": 1.0, "more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_broken_record_is_refused(content: object):
    with pytest.raises(CheckpointError, match="trained for is broken"):
        TrainedFor.from_manifest(content)
