"""What a mixture trains is what can be drawn from it."""

import numpy as np

from speechllm.data.coverage import trained_for
from speechllm.data.mixture import BLOCK, Mixture, MixtureComponent, MixtureConfig
from speechllm.data.row_store import RowStore
from speechllm.data.tokenize import TokenRow
from speechllm.segments import PLAIN_TEXT
from speechllm.tasks import TaskTag
from tests.support.tiny import tiny_processor

PROCESSOR = tiny_processor(semantic=False)


def row(number, *, seconds=1.0, codes=4, target="fr", there=2.0):
    return TokenRow(
        id=str(number), split="train", language="en", text="one", codes=np.zeros(codes, np.int64),
        duration_seconds=seconds, translation_language=target, translation_text="un" if target else "",
        translation_codes=np.zeros(3, np.int64) if target else None, translation_duration_seconds=there,
    )  # fmt: skip


def mixture(components, rows):
    config = MixtureConfig(components=[MixtureComponent(folder="f", **component) for component in components])
    return Mixture(config, PROCESSOR, [RowStore.of(rows)] * len(components))


def test_what_is_drawn_is_covered_and_nothing_else():
    components = [
        {"tasks": "ASR"}, {"tasks": "MT", "directions": ["fr-en"]}, {"tasks": "ASR AST S2ST"}, {"tasks": "text"},
        {"tasks": "TTS", "weight": 0.0},
    ]  # fmt: skip
    mixed = mixture(components, [row(i) for i in range(3)])
    trained = trained_for(mixed, max_tokens=100)
    tags = {mixed.segments(i).tag for i in range(BLOCK)} - {PLAIN_TEXT}
    assert {(tag.name, tag.direction) for tag in map(TaskTag.parse, tags)} == {
        (name, direction) for name, directions in trained.tasks.items() for direction in directions
    }
    assert dict(trained.tasks) == {"ASR": ("en", "fr"), "MT": ("fr-en",), "ASR AST S2ST": ("en-fr", "fr-en")}


def test_the_longest_speech_is_one_that_is_read_and_fits():
    rows = [row(0, seconds=1.5), row(1, seconds=3.0, target=None), row(2, seconds=9.0, codes=50), row(3, there=4.0)]
    assert trained_for(mixture([{"tasks": "ASR"}], rows), max_tokens=100).longest_seconds == 9.0
    assert trained_for(mixture([{"tasks": "ASR"}], rows), max_tokens=50).longest_seconds == 4.0, "a row has no room"
    only_en = mixture([{"tasks": "AST", "directions": ["en-fr"]}], rows[:2] + rows[3:])
    assert trained_for(only_en, max_tokens=50).longest_seconds == 1.5, "what is written is not read"
    assert trained_for(mixture([{"tasks": "TTS"}], rows), max_tokens=50).longest_seconds is None
