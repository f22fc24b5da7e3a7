"""A model that listens is told from one that does not."""

import dataclasses
import math

import numpy as np
import pytest

from recipes.listening import ListeningConfig, ListeningTest, measure_listening
from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import DataError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import Decoded
from speechllm.hub import Checkpoint
from speechllm.segments import TextSegment
from tests.support.tiny import tiny_model, tiny_processor

WORDS = ("one", "two", "three", "four", "five")


def noise(seed: int) -> bytes:
    return encode_flac(Audio(0.2 * np.random.default_rng(seed).standard_normal(6_000 + 800 * seed), 16_000))


@pytest.fixture(scope="module")
def checkpoint():
    processor = tiny_processor()
    return Checkpoint(tiny_model(processor.vocabulary.size), processor)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("spoken")
    records = [Record(f"t{i}", "test", "en", f"{word} {word}", noise(i)) for i, word in enumerate(WORDS)]
    records += [Record("x", "train", "en", "one one", noise(9)), Record("y", "test", "fr", "un", noise(8))]
    prepare_corpus(records, folder / "corpus")
    tokenize_corpus(folder / "corpus", checkpoint.processor.semantic_tokenizer, folder / "tokens")
    return ListeningTest(name="t", corpus=str(folder / "corpus"), tokens=str(folder / "tokens"), language="en")


def answers(monkeypatch, answer):
    """Let the decoder answer with `answer(prompt)` in the place of the model."""

    def decode(self, prompts, grammars, config):
        return [Decoded(prompt, [TextSegment(answer(prompt))], "eos", 0.0) for prompt in prompts]

    monkeypatch.setattr(LMDecoder, "decode", decode)


def test_a_model_that_hears_every_word_is_told_by_its_gain(monkeypatch, checkpoint, spoken):
    # The utterances have 5 to 8 codes; two of them share a length, and so an answer.
    by_length = {math.ceil((6_000 + 800 * i) / 1_280): f"{word} {word}" for i, word in enumerate(WORDS)}

    def hear(prompt):
        return by_length[int((prompt >= checkpoint.processor.vocabulary["semantic"].start).sum())]

    answers(monkeypatch, hear)
    (result,) = measure_listening(checkpoint, [spoken], ListeningConfig(), [spoken.tokens])
    assert result.real.num_scored == len(WORDS)
    assert result.real.value < result.shuffled.value
    assert result.gain.interval[1] < 0


def test_a_deaf_model_gains_nothing(monkeypatch, checkpoint, spoken):
    answers(monkeypatch, lambda prompt: "one one")
    (result,) = measure_listening(checkpoint, [spoken], ListeningConfig())
    assert result.real.value == result.shuffled.value == pytest.approx(80.0)
    assert result.gain.difference == 0


class OneOne:
    """Hears the same in everything."""

    def __init__(self, language="en"):
        self.language = language

    def speaks(self, language):
        return language == self.language

    def transcribe(self, audios, language):
        return ["one one" for _ in audios]


def test_the_second_ceiling_is_that_of_a_recogniser_of_the_language(monkeypatch, checkpoint, spoken):
    answers(monkeypatch, lambda prompt: "")
    config = ListeningConfig(moonshine=True)
    monkeypatch.setattr("recipes.listening.MoonshineJudge", OneOne)
    (result,) = measure_listening(checkpoint, [spoken], config)
    assert (result.ceiling, result.second_ceiling and result.second_ceiling.value) == (None, pytest.approx(80.0))
    (unasked,) = measure_listening(checkpoint, [dataclasses.replace(spoken, ceiling=False)], config)
    assert unasked.second_ceiling is None
    monkeypatch.setattr("recipes.listening.MoonshineJudge", lambda: OneOne("fr"))
    (foreign,) = measure_listening(checkpoint, [spoken], config)
    assert foreign.second_ceiling is None


def test_references_that_were_trained_on_are_counted(monkeypatch, checkpoint, spoken):
    answers(monkeypatch, lambda prompt: "one one")
    (seen,) = measure_listening(checkpoint, [spoken], ListeningConfig(), [spoken.tokens])
    (unknown,) = measure_listening(checkpoint, [spoken], ListeningConfig())
    assert (seen.num_in_training, unknown.num_in_training) == (1, 0)


def test_a_real_model_is_measured_to_the_end(checkpoint, spoken):
    (result,) = measure_listening(checkpoint, [spoken], ListeningConfig(num_items=3, max_text_tokens=5))
    assert result.decoding.num_sequences == 3
    assert result.ceiling is None
    assert result.to_dict()["real"]["num_scored"] == 3


def test_too_few_utterances_are_refused(checkpoint, spoken):
    french = dataclasses.replace(spoken, language="fr")
    with pytest.raises(DataError, match="has 1 utterances of 'fr' with text in 'test'"):
        measure_listening(checkpoint, [french], ListeningConfig())
