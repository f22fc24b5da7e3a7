"""Beam search: exact where everything can be tried, greedy where one beam is left, any batch."""

import dataclasses

import numpy as np
import pytest
import torch

from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import Grammar, GrammarLogitsProcessor
from speechllm.generation.sampling import SamplingConfig
from speechllm.segments import TextSegment
from tests.support.tiny import tiny_model, tiny_processor

PROCESSOR = tiny_processor(semantic=False)
EOS = PROCESSOR.eos_id
PROMPTS = [PROCESSOR.encode_prompt([TextSegment("[MT English French]"), TextSegment("good " * n)]) for n in (1, 4, 2)]


@pytest.fixture(scope="module")
def decoder() -> LMDecoder:
    return LMDecoder(tiny_model(PROCESSOR.vocabulary.size), PROCESSOR)


def test_wide_beams_find_the_best_text_of_all(decoder: LMDecoder):
    """With more beams than there are texts of one id, and nothing longer allowed, the search is exhaustive."""
    config = DecodingConfig(num_beams=400, max_text_tokens=1, length_penalty=0.0)
    special = PROCESSOR.text_tokenizer.all_special_ids
    content = torch.tensor([i for i in range(len(PROCESSOR.text_tokenizer)) if i not in special])
    for prompt in PROMPTS[:2]:
        with torch.no_grad():
            first = decoder.lm.model(torch.from_numpy(prompt)[None], use_cache=False).logits[0, -1]
        legal = torch.cat([content, torch.tensor([EOS])])
        # After one id the text must end: EOS has probability 1 among what is legal, so this is the whole score.
        scores = first[legal].log_softmax(-1)
        best = int(legal[scores.argmax()])
        (decoded,) = decoder.decode([prompt], [("text",)], config)
        assert decoded.ids.tolist() == ([EOS] if best == EOS else [best, EOS])
        assert decoded.score == pytest.approx(float(scores.max()), abs=1e-3)


def test_a_beam_beats_greedy_where_greedy_is_wrong(decoder: LMDecoder):
    """Over several prompts the best of many beams is at least as likely as the greedy text, and sometimes more."""
    rng = np.random.default_rng(0)
    prompts = [np.concatenate([p[:-1], rng.integers(3, 300, 3), p[-1:]]) for p in PROMPTS for _ in range(4)]
    config = DecodingConfig(min_text_tokens=3, max_text_tokens=3, length_penalty=0.0)
    greedy, beams = (
        decoder.decode(prompts, [("text",)] * 12, dataclasses.replace(config, num_beams=count)) for count in (1, 8)
    )
    gains = np.array([b.score - g.score for g, b in zip(greedy, beams, strict=True)])
    assert gains.max() > 0.1
    assert (gains > -1e-3).mean() > 0.8, "beams may lose the greedy text on the way, but seldom"


def test_one_prompt_equals_a_batch(decoder: LMDecoder):
    config = DecodingConfig(num_beams=3, max_text_tokens=8, max_audio_seconds=0.4)
    grammars: list[Grammar] = [("text",), ("text", "text", "audio"), ("audio",)]
    together = decoder.decode(PROMPTS, grammars, config)
    for prompt, grammar, expected in zip(PROMPTS, grammars, together, strict=True):
        (alone,) = decoder.decode([prompt], [grammar], config)
        assert alone.ids.tolist() == expected.ids.tolist()
        assert alone.score == pytest.approx(expected.score, abs=1e-3)


def test_sampled_audio_does_not_depend_on_neighbours_without_audio(decoder: LMDecoder):
    """Sequence i draws from (seed, i), whatever the grammars of those before it."""
    audio = SamplingConfig(temperature=1.0)
    config = DecodingConfig(num_beams=2, max_text_tokens=4, max_audio_seconds=0.8, audio=audio, min_audio_tokens=10)
    text_first = decoder.decode(PROMPTS[:2], [("text",), ("text", "audio")], config)
    audio_first = decoder.decode(PROMPTS[:2], [("text", "audio"), ("text", "audio")], config)
    assert text_first[1].ids.tolist() == audio_first[1].ids.tolist()


def test_beams_agree_with_transformers(decoder: LMDecoder):
    """generate() with the same width, without length penalty, under the same grammar."""
    config = DecodingConfig(num_beams=4, max_text_tokens=6, length_penalty=0.0)
    for prompt in PROMPTS:
        mask = GrammarLogitsProcessor(PROCESSOR, ("text",), config.limits(25.0), len(prompt))
        theirs = decoder.lm.model.generate(
            torch.from_numpy(prompt)[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), num_beams=4,
            do_sample=False, max_new_tokens=10, length_penalty=0.0, early_stopping=True, renormalize_logits=True,
            eos_token_id=EOS, pad_token_id=0, logits_processor=[mask],
        )[0, len(prompt) :]  # fmt: skip
        (ours,) = decoder.decode([prompt], [("text",)], config)
        assert ours.ids.tolist() == [i for i in theirs.tolist() if i != 0]


def test_audio_follows_the_best_text(decoder: LMDecoder):
    beams = DecodingConfig(num_beams=3, max_text_tokens=5, max_audio_seconds=0.4)
    (decoded,) = decoder.decode([PROMPTS[0]], [("text", "audio")], beams)
    cut = decoded.ids.tolist().index(PROCESSOR.vocabulary.next_id) + 1
    longer = np.concatenate([PROMPTS[0], decoded.ids[:cut]])
    (rest,) = decoder.decode([longer], [("audio",)], dataclasses.replace(beams, num_beams=1))
    assert decoded.ids[cut:].tolist() == rest.ids.tolist()
    assert decoded.ids[-1] == EOS


def test_texts_that_a_limit_ended_say_so(decoder: LMDecoder):
    config = DecodingConfig(num_beams=2, min_text_tokens=5, max_text_tokens=5)
    (decoded,) = decoder.decode([PROMPTS[0]], [("text",)], config)
    assert len(decoded.ids) == 6
    assert decoded.stop_reason == "too_long"


def test_context_is_never_exceeded(decoder: LMDecoder):
    long = np.resize(PROMPTS[0], 508)
    (decoded,) = decoder.decode([long], [("text",)], DecodingConfig(num_beams=2, min_text_tokens=50))
    assert len(decoded.ids) == 512 - 508
    assert decoded.stop_reason == "too_long"
