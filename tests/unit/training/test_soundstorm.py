import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import ConfigError, DataError
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig, length_mask
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.fake import FakeSemanticTokenizer
from speechllm.tokenizers.kmeans import KMeansConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig, fit_mel_rvq
from speechllm.training import codec as codec_training
from speechllm.training.codec import train_codec
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.optim import OptimizerConfig
from speechllm.training.soundstorm import (
    AcousticUtterance,
    SoundStormStage,
    SoundStormStageConfig,
    SoundStormTrainConfig,
    encode_utterances,
    mask_codes,
    train_soundstorm,
)

K, N = 4, 9
TRUNK = ConformerConfig(width=32, num_layers=1, num_heads=2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    has_prompts=st.booleans(),
)
def test_masking_keeps_its_promises(seed, lengths, has_prompts):
    generator = torch.Generator().manual_seed(seed)
    B, T, lengths = len(lengths), max(lengths), torch.tensor(lengths)
    codes = torch.randint(N, (B, K, T), generator=generator)
    prompts = torch.minimum(torch.randint(-1, 10, (B,), generator=generator), lengths - 1) if has_prompts else None
    masked = mask_codes(codes, lengths, mask_id=N, generator=generator, prompt_lengths=prompts)
    is_masked = masked.codes == N
    assert torch.equal(masked.codes[~is_masked], codes[~is_masked])
    assert bool(masked.loss_mask.any(1).all())
    assert not bool((masked.loss_mask & ~length_mask(lengths, T)).any())
    for b, q in enumerate(masked.level.tolist()):
        assert torch.equal(is_masked[b, q], masked.loss_mask[b])
        assert not bool(is_masked[b, :q].any())
        hidden_above = is_masked[b, q + 1 :]
        assert bool((hidden_above == hidden_above[:1]).all())
        if prompts is not None and prompts[b] >= 0:
            assert not bool(is_masked[b, :, : prompts[b]].any())
            assert bool(hidden_above[:, prompts[b] :].all())
        if q < K - 1:
            assert bool((hidden_above[0] | ~masked.loss_mask[b]).all())


def test_rows_of_the_first_level_can_be_masked_whole():
    lengths, prompts = torch.full((200,), 20), torch.full((200,), 5)
    codes = torch.zeros(200, K, 20, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    masked = mask_codes(
        codes,
        lengths,
        mask_id=N,
        generator=generator,
        prompt_lengths=prompts,
        first_level_share=0.5,
        all_masked_share=1.0,
    )
    num_masked = masked.loss_mask.sum(1)
    assert bool((num_masked[masked.level == 0] == 15).all())
    assert 0 < float((masked.level > 0).float().mean()) < 1
    assert bool((num_masked[masked.level > 0] < 15).any())


def test_the_mean_share_is_two_over_pi_and_levels_are_alike():
    B, T = 4_000, 50
    masked = mask_codes(
        torch.zeros(B, K, T, dtype=torch.long),
        torch.full((B,), T),
        mask_id=N,
        generator=torch.Generator().manual_seed(0),
        prompt_lengths=torch.zeros(B, dtype=torch.long),
    )
    assert float(masked.loss_mask.float().mean()) == pytest.approx(2 / np.pi, abs=0.02)
    assert torch.bincount(masked.level) / B == pytest.approx([0.25] * 4, abs=0.03)


def test_the_share_of_the_first_level_can_be_set():
    masked = mask_codes(
        torch.zeros(4_000, K, 3, dtype=torch.long),
        torch.full((4_000,), 3),
        mask_id=N,
        generator=torch.Generator().manual_seed(0),
        first_level_share=0.6,
    )
    assert torch.bincount(masked.level) / 4_000 == pytest.approx([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], abs=0.03)


def toy_utterances(count=24):
    """Return utterances whose acoustic codes follow from the semantic code and from the speaker alone."""
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(count):
        semantic = rng.integers(5, size=rng.integers(6, 12))
        level = np.repeat(semantic, 2) + (i % 2) * 4
        utterances.append(AcousticUtterance(semantic, np.stack([level, level[::1], 8 - level, level]) % N, f"s{i % 2}"))
    return utterances


def stage(seed=0, tied=False, **options):
    torch.manual_seed(seed)
    config = SoundStormConfig(
        num_conditions=5, num_codebooks=K, codebook_size=N, tied=tied, codebook_width=6 if tied else 0, trunk=TRUNK
    )
    model = SoundStorm(config)
    if tied:
        # As in a residual quantiser, each level is finer than the one before.
        model.codes.set_codebooks(torch.randn(K, N, 6) * 0.5 ** torch.arange(K)[:, None, None])
    config = SoundStormTrainConfig(max_frames=300, **{"prompt_seconds": (0.3, 0.6), **options})
    return SoundStormStage(model, toy_utterances(), config, frame_rate=25.0, seed=seed)


def test_batches_are_a_function_of_seed_and_step():
    first, second = stage(), stage()
    for step in (7, 0, 3):
        for one, other in zip(first.batch(step), second.batch(step), strict=True):
            pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
            assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first.batch(0)[:3], first.batch(1)[:3], strict=True)
    )


def test_an_epoch_has_every_utterance_once_within_the_limit():
    training = stage(prompt_share=1.0, prompt_seconds=(0.3, 2.0))
    for epoch in range(6):
        rows = [row for _, batch in training._batches(epoch) for row in batch]
        assert sorted(rows) == [((i, 0),) for i in range(24)]
    # Epochs have different numbers of batches: no step may fall between them.
    assert len({len(training._batches(epoch)) for epoch in range(20)}) > 1
    for step in range(100):
        batch = training.batch(step)
        assert batch.condition.numel() <= 300
        assert bool((batch.masked.codes[:, :, :8] == batch.codes[:, :, :8]).all())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_it_learns_content_from_the_condition_and_the_speaker_from_the_prompt(tied, tmp_path):
    training = stage(tied=tied, prompt_share=1.0, own_mistakes=0.0)
    loop = LoopConfig(
        steps=80, optimizer=OptimizerConfig(kind="muon", learning_rate=1e-2), warmup_steps=5, progress=False
    )
    train_stage(training, loop, tmp_path)
    training.model.eval()
    with torch.no_grad():
        accuracy = np.mean([training.loss(training.batch(step))[1]["accuracy"] for step in range(100, 106)])
    # Without the prompt each code has two equally likely values.
    assert accuracy > 0.8


def test_codes_from_different_audio_are_refused():
    training = stage()
    broken = AcousticUtterance(np.zeros(5, np.int64), np.zeros((K, 30), np.int64))
    with pytest.raises(DataError, match="same audio"):
        SoundStormStage(training.model, [broken], training.config, frame_rate=25.0, seed=0)
    with pytest.raises(DataError, match="no utterances"):
        SoundStormStage(training.model, [], training.config, frame_rate=25.0, seed=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)

    def sound():
        return encode_flac(Audio((rng.standard_normal(12_800) * 0.1).astype(np.float32), 16_000))

    records = [
        Record(
            id=f"r{i}",
            split="train",
            language="en",
            text="a",
            audio=sound(),
            speaker=f"s{i % 2}",
            translation=Translation("fr", "b", audio=sound(), speaker="t") if i % 2 else None,
        )
        for i in range(4)
    ]
    prepare_corpus(records, folder)
    return folder


CODEC = MelRVQConfig(mel=LogMelConfig(num_mels=8), num_codebooks=2, codebook_size=8, kmeans=KMeansConfig(passes=1))
RUN = SoundStormStageConfig(
    loop=LoopConfig(steps=3, progress=False),
    num_codebooks=2,
    trunk=TRUNK,
    batches=SoundStormTrainConfig(max_frames=400),
)


def test_a_corpus_becomes_a_codec_and_a_model_and_a_second_call_changes_nothing(corpus, tmp_path):
    codec = train_codec(corpus, CODEC, tmp_path / "codec", seed=0)
    assert load_codec(tmp_path / "codec").fingerprint == codec.fingerprint
    tokenizer = FakeSemanticTokenizer(16, frame_rate=12.5)
    model, report = train_soundstorm(corpus, tokenizer, codec, RUN, tmp_path / "acoustic")
    assert report.steps == 3
    assert model.config.codec_fingerprint == codec.fingerprint
    again, report = train_soundstorm(corpus, tokenizer, codec, RUN, tmp_path / "acoustic")
    assert report.resumed_from == 3
    loaded = SoundStorm.from_pretrained(tmp_path / "acoustic")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, loaded.state_dict()[name])


def test_a_codec_reads_no_more_speech_than_it_uses(corpus, tmp_path, monkeypatch):
    """20 patches are one utterance of 0.8 s; two are read beyond it, as lengths are rounded."""
    whole = [audio.samples for _, _, audio in codec_training.training_audio(corpus, 16_000)]
    order = np.random.default_rng(3).permutation(len(whole))
    config = dataclasses.replace(CODEC, kmeans=KMeansConfig(passes=1, max_frames=20))
    expected = fit_mel_rvq((torch.from_numpy(whole[i]) for i in order), config, seed=3)
    read, load_audio = [], codec_training.load_audio
    monkeypatch.setattr(codec_training, "load_audio", lambda *args: (read.append(1), load_audio(*args))[1])
    assert train_codec(corpus, config, tmp_path, seed=3).fingerprint == expected.fingerprint
    assert len(read) <= 3 < len(whole)


def test_codes_of_token_shards_are_taken_as_they_are(corpus, tmp_path):
    codec = train_codec(corpus, CODEC, tmp_path / "codec", seed=0)
    tokenizer = FakeSemanticTokenizer(16, frame_rate=12.5)
    tokenize_corpus(corpus, tokenizer, tmp_path / "tokens")
    fresh = encode_utterances(corpus, tokenizer, codec, num_codebooks=2)
    taken = encode_utterances(corpus, tokenizer, codec, num_codebooks=2, tokens_folder=tmp_path / "tokens")
    assert len(fresh) == len(taken) == 6
    assert {u.speaker for u in fresh} == {"en/s0", "en/s1", "fr/t"}
    for one, other in zip(fresh, taken, strict=True):
        assert np.array_equal(one.semantic, other.semantic)
        assert np.array_equal(one.acoustic, other.acoustic)


def test_rates_and_levels_that_do_not_fit_are_refused(corpus, tmp_path):
    codec = train_codec(corpus, CODEC, tmp_path / "codec", seed=0)
    with pytest.raises(ConfigError, match="whole multiple"):
        train_soundstorm(corpus, FakeSemanticTokenizer(16, frame_rate=10.0), codec, RUN, tmp_path / "a")
    three = SoundStormStageConfig(loop=RUN.loop, num_codebooks=3)
    with pytest.raises(ConfigError, match="the codec has 2"):
        train_soundstorm(corpus, FakeSemanticTokenizer(16, frame_rate=12.5), codec, three, tmp_path / "a")
