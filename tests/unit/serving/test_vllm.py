"""vLLM's interface, played by our own model: the parts come out as `LMDecoder` writes them."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechllm.errors import ConfigError, DataError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.serving.vllm import VLLMDecoder
from speechllm.tasks import TaskTag
from tests.support.tiny import tiny_model, tiny_processor, tiny_speech

TAGS = ("[ASR French]", "[ASR AST S2ST English French]", "[S2ST French English]", "[ASR AST English French]")


@dataclass(kw_only=True)
class FakeSamplingParams:
    """The fields of vllm.SamplingParams that are used, with its defaults."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    allowed_token_ids: list[int] | None = None
    stop_token_ids: list[int] | None = field(default=None)
    ignore_eos: bool = False
    detokenize: bool = True


class FakeLLM:
    """Greedy generation as vLLM documents it: stop ids end an output and stand in it; min_tokens holds them back."""

    def __init__(self, model):
        self.model, self.calls = model, 0

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        self.calls += 1
        assert not use_tqdm
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt, params):
        assert params.temperature == 0.0
        ids = []
        while len(ids) < params.max_tokens:
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + ids])).logits[0, -1]
            mask = torch.full_like(logits, -torch.inf)
            mask[params.allowed_token_ids] = 0
            if len(ids) < params.min_tokens:
                mask[params.stop_token_ids] = -torch.inf
            ids.append(int((logits + mask).argmax()))
            if ids[-1] in params.stop_token_ids:
                break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids))])


@pytest.fixture(scope="module")
def parts():
    processor = tiny_processor()
    return tiny_model(processor.vocabulary.size), processor


@pytest.mark.parametrize(
    "config",
    [
        DecodingConfig(max_text_tokens=30, loop_text_tokens=6, loop_repeats=2, loop_audio_seconds=0.5),
        DecodingConfig(max_text_tokens=30, max_audio_seconds=2.0, loop_text_tokens=0, loop_audio_seconds=0.0),
        DecodingConfig(max_text_tokens=5, max_audio_seconds=0.5, loop_text_tokens=0, loop_audio_seconds=0.0),
        DecodingConfig(
            max_text_tokens=30, min_text_tokens=8, max_audio_seconds=2.0, loop_text_tokens=0, loop_audio_seconds=0.0
        ),
    ],
    ids=["loops", "free", "short", "minimum"],
)
def test_greedy_ids_are_ours(parts, config):
    model, processor = parts
    llm = FakeLLM(model)
    theirs, ours = VLLMDecoder(llm, FakeSamplingParams, processor, max_positions=512), LMDecoder(model, processor)
    tags = [TaskTag.parse(tag) for tag in TAGS]
    prompts = [processor(tag, [tiny_speech(0.5 + i, seed=i)])[0] for i, tag in enumerate(tags)]
    grammars = [tag.output_modalities for tag in tags]
    for a, b in zip(
        ours.decode(prompts, grammars, config), theirs.decode(prompts, grammars, config), strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(a.ids, b.ids)
        assert (a.stop_reason, a.segments) == (b.stop_reason, b.segments)
    assert llm.calls == 3, "all sequences in a part share a call"


def test_a_full_context_ends_it_as_ours(parts):
    model, processor = parts
    theirs, ours = (
        VLLMDecoder(FakeLLM(model), FakeSamplingParams, processor, max_positions=512),
        LMDecoder(model, processor),
    )
    config = DecodingConfig(min_text_tokens=200, loop_text_tokens=0)
    prompt = processor(TaskTag.of("MT", "en", "fr"), ["good morning " * 50])[0]
    assert 330 < len(prompt) < 512
    (a,), (b,) = (one.decode([prompt], [("text",)], config) for one in (ours, theirs))
    np.testing.assert_array_equal(a.ids, b.ids)
    assert a.stop_reason == b.stop_reason == "too_long"
    with pytest.raises(DataError, match="reads 512"):
        theirs.decode([np.zeros(512, np.int64)], [("text",)], config)


def test_sampling_is_refused(parts):
    model, processor = parts
    decoder = VLLMDecoder(FakeLLM(model), FakeSamplingParams, processor, max_positions=512)
    with pytest.raises(ConfigError, match="greedy"):
        decoder.decode([], [], DecodingConfig(audio=SamplingConfig(temperature=1.0)))
