"""Laws of decoding: cached == uncached, one == many, greedy == generate(), and nothing illegal, ever."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import ConfigError, DataError, VocabularyError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import Decoded, DecodeReport
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import Grammar, GrammarLogitsProcessor
from speechllm.generation.sampling import SamplingConfig
from speechllm.segments import CodeSegment, TextSegment
from speechllm.vocabulary import SEMANTIC
from tests.support.tiny import SIZES, tiny_model, tiny_processor

PROCESSOR = tiny_processor(semantic=False)
SIZE = PROCESSOR.vocabulary.size
GRAMMARS: list[Grammar] = [("text",), ("audio",), ("text", "audio"), ("text", "text", "audio"), ("audio", "text")]
SHORT = DecodingConfig(max_text_tokens=9, max_audio_seconds=0.4)


def prompts(count: int, seed: int = 0) -> list[np.ndarray]:
    """Prompts of mixed lengths, text and audio."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        codes = CodeSegment(rng.integers(0, 16, size=int(rng.integers(1, 12))))
        found.append(PROCESSOR.encode_prompt([TextSegment("[ASR French]" * (1 + i % 3)), codes]))
    return found


@pytest.fixture(scope="module", params=SIZES)
def decoder(request: pytest.FixtureRequest) -> LMDecoder:
    return LMDecoder(tiny_model(SIZE, request.param), PROCESSOR)


@pytest.fixture(scope="module")
def llama() -> LMDecoder:
    return LMDecoder(tiny_model(SIZE), PROCESSOR)


def test_every_family_has_its_head_cut(decoder: LMDecoder):
    assert decoder.lm.has_cut_head


def test_one_by_one_equals_a_batch(decoder: LMDecoder):
    inputs, grammars = prompts(5), GRAMMARS
    together = decoder.decode(inputs, grammars, SHORT)
    for prompt, grammar, expected in zip(inputs, grammars, together, strict=True):
        (alone,) = decoder.decode([prompt], [grammar], SHORT)
        assert alone.ids.tolist() == expected.ids.tolist()
        assert alone.segments == expected.segments
        # Same sums in another order: float32 rounding over tens of steps.
        assert alone.score == pytest.approx(expected.score, abs=1e-3)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=" ".join)
def test_greedy_equals_generate(decoder: LMDecoder, grammar: Grammar):
    prompt = prompts(1, seed=3)[0]
    (ours,) = decoder.decode([prompt], [grammar], SHORT)
    mask = GrammarLogitsProcessor(PROCESSOR, grammar, SHORT.limits(decoder.frame_rate), len(prompt))
    theirs = decoder.lm.model.generate(
        torch.from_numpy(prompt)[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=200,
        do_sample=False,
        eos_token_id=PROCESSOR.eos_id,
        pad_token_id=0,
        logits_processor=[mask],
    )
    assert ours.ids.tolist() == theirs[0, len(prompt) :].tolist()


def test_cached_equals_uncached(decoder: LMDecoder):
    """Each id is the best legal one of a fresh pass over everything before it."""
    inputs = prompts(len(GRAMMARS), seed=1)
    for prompt, grammar, decoded in zip(inputs, GRAMMARS, decoder.decode(inputs, GRAMMARS, SHORT), strict=True):
        mask = GrammarLogitsProcessor(PROCESSOR, grammar, SHORT.limits(decoder.frame_rate), len(prompt))
        sequence = torch.from_numpy(np.concatenate([prompt, decoded.ids]))[None]
        with torch.no_grad():
            logits = decoder.lm.model(sequence, use_cache=False).logits[0]
        score = 0.0
        for t in range(len(prompt), sequence.shape[1]):
            legal = mask(sequence[:, :t], logits[None, t - 1])[0]
            chosen = legal[sequence[0, t]]
            # A tie may fall either way in float32, so the chosen id must be within rounding of the best.
            assert chosen >= legal.max() - 1e-4
            score += float(chosen - legal.logsumexp(-1))
        assert decoded.score == pytest.approx(score, abs=1e-3)


@given(
    seed=st.integers(0, 2**16),
    temperature=st.sampled_from([0.0, 0.7, 5.0]),
    grammar=st.lists(st.sampled_from(["text", "audio"]), min_size=1, max_size=4).map(tuple),
    batch=st.integers(1, 5),
)
def test_ids_are_always_legal(llama: LMDecoder, seed: int, temperature: float, grammar: Grammar, batch: int):
    sampling = SamplingConfig(temperature=temperature)
    config = DecodingConfig(text=sampling, audio=sampling, max_text_tokens=7, max_audio_seconds=0.3, seed=seed)
    vocabulary, eos = PROCESSOR.vocabulary, PROCESSOR.eos_id
    for decoded in llama.decode(prompts(batch, seed), [grammar] * batch, config):
        ids = decoded.ids.tolist()
        assert ids[-1] == eos
        assert ids.count(eos) == 1
        assert ids.count(vocabulary.next_id) == len(grammar) - 1
        parts = np.split(decoded.ids[:-1], np.flatnonzero(decoded.ids == vocabulary.next_id))
        for part, modality, segment in zip(parts, grammar, decoded.segments, strict=True):
            content = [int(i) for i in part if i != vocabulary.next_id]
            if modality == "audio":
                assert all(i in vocabulary[SEMANTIC] for i in content)
                assert 1 <= len(content) <= 7
                assert isinstance(segment, CodeSegment)
                assert len(segment.codes) == len(content)
            else:
                assert all(2 < i < len(PROCESSOR.text_tokenizer) for i in content), "no special ids, no spare rows"
                assert len(content) <= 7
                assert isinstance(segment, TextSegment)


def test_sampling_does_not_depend_on_the_batch(llama: LMDecoder):
    sampling = SamplingConfig(temperature=1.0, top_k=20, top_p=0.9)
    inputs, grammars = prompts(6), [("text", "audio")] * 6
    ids = []
    for batch_size in (1, 2, 6):
        config = DecodingConfig(
            text=sampling, audio=sampling, batch_size=batch_size, seed=7, max_text_tokens=9, max_audio_seconds=0.5
        )
        ids.append([d.ids.tolist() for d in llama.decode(inputs, grammars, config)])
    assert ids[0] == ids[1] == ids[2]
    other = llama.decode(inputs, grammars, DecodingConfig(text=sampling, audio=sampling, seed=8, max_text_tokens=9))
    assert ids[0] != [d.ids.tolist() for d in other]


class LoopingModel(torch.nn.Module):
    """A real tiny LM whose logits are overruled by a fixed cycle of ids, whatever it reads."""

    def __init__(self, cycle: list[int]):
        super().__init__()
        self.inner = tiny_model(SIZE)
        self.cycle, self.step = cycle, 0
        self.config, self.device = self.inner.config, self.inner.device

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None):
        output = self.inner(input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache)
        output.logits = output.logits * 0
        output.logits[:, :, self.cycle[self.step % len(self.cycle)]] = 9
        self.step += 1
        return output


@pytest.mark.filterwarnings("ignore:LoopingModel")
@pytest.mark.parametrize("period", [1, 2, 5])
def test_loops_are_ended_and_counted(period: int):
    cycle = [PROCESSOR.vocabulary[SEMANTIC].start + c for c in range(period)]
    decoder = LMDecoder(LoopingModel(cycle), PROCESSOR)
    (decoded,) = decoder.decode([prompts(1)[0]], [("audio",)], DecodingConfig(loop_audio_seconds=1.0))
    assert decoded.stop_reason == "loop"
    # 25 ids per second and four repeats at least, then EOS.
    assert len(decoded.ids) == max(25, 4 * period) + 1
    off = DecodingConfig(loop_audio_seconds=0.0, max_audio_seconds=3.0)
    (endless,) = decoder.decode([prompts(1)[0]], [("audio",)], off)
    assert endless.stop_reason == "too_long"
    assert len(endless.ids) == 75 + 1


def test_context_is_never_exceeded(llama: LMDecoder):
    long = np.resize(prompts(1)[0], 505)
    config = DecodingConfig(min_audio_tokens=50)
    (decoded,) = llama.decode([long], [("audio",)], config)
    assert len(decoded.ids) == 512 - 505
    assert decoded.stop_reason == "too_long"
    with pytest.raises(DataError, match="512 ids, but the model reads at most 512"):
        llama.decode([np.resize(long, 512)], [("audio",)])


def test_report_counts():
    def decoded(reason: str, *segments) -> Decoded:
        return Decoded(np.array([1, 2]), list(segments), reason, -1.0)

    report = DecodeReport.of(
        [
            decoded("eos", TextSegment("a")),
            decoded("eos", TextSegment(" ")),
            decoded("loop", TextSegment("a"), CodeSegment(np.array([], dtype=int))),
            decoded("too_long", CodeSegment(np.array([3]))),
        ]
    )
    assert report == DecodeReport(num_sequences=4, num_tokens=8, no_eos=2, loops=1, too_long=1, empty=2)
    assert report + DecodeReport() == report


def test_model_stays_as_it_was(llama: LMDecoder):
    before = {name: tensor.clone() for name, tensor in llama.lm.model.state_dict().items()}
    head = llama.lm.model.get_output_embeddings()
    llama.lm.model.train()
    llama.decode(prompts(2), [("text",)] * 2, SHORT)
    assert llama.lm.model.training
    llama.lm.model.eval()
    assert llama.lm.model.get_output_embeddings() is head
    assert all(torch.equal(before[name], tensor) for name, tensor in llama.lm.model.state_dict().items())


def test_weights_are_never_stale():
    model = tiny_model(SIZE)
    decoder = LMDecoder(model, PROCESSOR)
    first = decoder.decode(prompts(3), [("audio",)] * 3, SHORT)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(-1)
    second = decoder.decode(prompts(3), [("audio",)] * 3, SHORT)
    fresh = LMDecoder(model, PROCESSOR).decode(prompts(3), [("audio",)] * 3, SHORT)
    assert [d.ids.tolist() for d in second] == [d.ids.tolist() for d in fresh]
    assert [d.ids.tolist() for d in second] != [d.ids.tolist() for d in first]


def test_errors_name_what_was_given(llama: LMDecoder):
    prompt = prompts(1)[0]
    with pytest.raises(DataError, match="1 prompts came with 2 grammars"):
        llama.decode([prompt], [("text",)] * 2)
    with pytest.raises(DataError, match=rf"holds ids 0\.\.{SIZE}, expected"):
        llama.decode([np.array([0, SIZE])], [("text",)])
    with pytest.raises(DataError, match="at least one id"):
        llama.decode([np.array([], dtype=np.int64)], [("text",)])
    with pytest.raises(VocabularyError, match=f"{SIZE + 1} rows .* {SIZE} ids"):
        LMDecoder(tiny_model(SIZE + 1), PROCESSOR)
    with pytest.raises(ConfigError, match="num_beams is 0"):
        DecodingConfig(num_beams=0)
    with pytest.raises(ConfigError, match="use one of the two"):
        DecodingConfig(num_beams=2, text=SamplingConfig(temperature=1.0))
