"""Laws of choosing among spoken answers: the score is the model's own, no batch changes it, the best is kept."""

import dataclasses

import numpy as np
import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.generation.candidates import decode_best, hearing_scores, known_text
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.segments import TextSegment
from speechllm.tasks import TaskTag
from tests.support.tiny import SIZES, tiny_model, tiny_processor

PROCESSOR = tiny_processor(semantic=False)
SIZE = PROCESSOR.vocabulary.size
ASR = TaskTag.of("ASR", "en")
SAMPLED = SamplingConfig(temperature=1.0)
CONFIG = DecodingConfig(
    max_text_tokens=6, max_audio_seconds=0.4, candidates=CandidatesConfig(count=3, sampling=SAMPLED)
)
TEXTS = ["turn on the lamp", "a", "seven o'clock", "no"]


@pytest.fixture(scope="module", params=SIZES)
def decoder(request):
    return LMDecoder(tiny_model(SIZE, request.param), PROCESSOR)


def codes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 16, size=int(rng.integers(1, 12))) for _ in range(count)]


@torch.no_grad()
def score_alone(decoder, spoken, text):
    """log p(text | codes) by one plain pass of the model."""
    prompt, target = PROCESSOR.encode_prompt(ASR.prompt(spoken)), PROCESSOR.encode_target([TextSegment(text)])
    ids = torch.from_numpy(np.concatenate([prompt, target]))[None]
    log_probs = decoder.lm.model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(log_probs[len(prompt) + t - 1, target[t]]) for t in range(len(target)))


def test_the_score_is_that_of_the_model_alone_in_any_batch(decoder):
    spoken = codes(len(TEXTS))
    expected = [score_alone(decoder, *pair) for pair in zip(spoken, TEXTS, strict=True)]
    for batch_size in (1, 3, 32):
        scores = hearing_scores(decoder.lm, ASR, spoken, TEXTS, batch_size=batch_size)
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_nothing_said_or_too_much_is_the_worst():
    decoder = LMDecoder(tiny_model(SIZE), PROCESSOR)
    decoder.lm.max_positions = 60
    spoken = [np.zeros(0, np.int64), codes(1)[0], np.zeros(80, np.int64)]
    scores = hearing_scores(decoder.lm, ASR, spoken, ["a", "a", "a"])
    assert np.isneginf(scores).tolist() == [True, False, True]


@pytest.mark.parametrize(("tasks", "languages"), [("TTS", ("en",)), ("ASR AST S2ST", ("fr", "en"))])
def test_the_best_draw_is_kept(decoder, tasks, languages):
    tag = TaskTag.of(tasks, *languages)
    prompts = [PROCESSOR.encode_prompt(tag.prompt(x)) for x in (TEXTS if tasks == "TTS" else codes(4, seed=1))]
    draws = dataclasses.replace(CONFIG, audio=SAMPLED, candidates=None)
    drawn = decoder.decode([p for p in prompts for _ in range(3)], [tag.output_modalities] * 12, draws)
    spoken = [one.segments[-1].codes for one in drawn]
    assert len({tuple(row) for row in spoken}) > len(prompts), "draws differ"
    texts = [t for t in TEXTS for _ in range(3)] if tasks == "TTS" else [one.segments[1].text for one in drawn]
    scores = [score_alone(decoder, *pair) for pair in zip(spoken, texts, strict=True)]
    # those that a guard had to end come last
    keys = [(one.stop_reason == "eos", score) for one, score in zip(drawn, scores, strict=True)]
    best = [max(range(3 * i, 3 * i + 3), key=keys.__getitem__) for i in range(4)]
    kept = decode_best(decoder, tag, prompts, TEXTS, CONFIG)
    assert [one.ids.tolist() for one in kept] == [drawn[i].ids.tolist() for i in best]


def test_which_tasks_know_what_they_say():
    found = {tasks: known_text(TaskTag.of(tasks, "en", "fr")) for tasks in ("TTS", "ASR AST S2ST", "AST S2ST")}
    assert found == {"TTS": "transcript", "ASR AST S2ST": "translation", "AST S2ST": "translation"}
    for tasks in ("S2ST", "ASR", "MT", "ASR S2ST", "S2ST AST"):
        assert known_text(TaskTag.of(tasks, "en", "fr")) is None


def test_settings_that_leave_nothing_to_choose_are_errors():
    with pytest.raises(ConfigError, match="at least 2"):
        CandidatesConfig(count=1)
    with pytest.raises(ConfigError, match="all candidates are the same"):
        CandidatesConfig(sampling=SamplingConfig())
    with pytest.raises(ConfigError, match="one text"):
        DecodingConfig(text=SAMPLED, candidates=CandidatesConfig())
