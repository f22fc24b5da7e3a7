import dataclasses

import numpy as np
import pytest
import torch

from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.errors import ConfigError, DataError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.audiolm import audiolm_codes, continue_speech
from speechllm.generation.voice import VoicePrompt, encode_voice
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_layouts import STAGES, CodeSizes, remove_repeats, stage_layout
from speechllm.models.token_lm import DecoderConfig, StageLMConfig, TokenLM
from speechllm.tokenizers.fake import FakeSemanticTokenizer
from speechllm.tokenizers.kmeans import KMeansConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig
from speechllm.training.audiolm import (
    POOL,
    AudioLMTrainConfig,
    StageTrainConfig,
    TokenLMStage,
    join_speakers,
    train_audiolm,
)
from speechllm.training.codec import train_codec
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.optim import OptimizerConfig
from speechllm.training.utterances import AcousticUtterance

SIZES = CodeSizes(num_conditions=7, codebook_size=6, num_codebooks=4, num_coarse=2)
DECODER = DecoderConfig(width=32, num_layers=1, num_heads=2, feed_forward=64)


def utterances(count=20):
    """Return utterances whose acoustic codes follow from the semantic code and from the speaker alone."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        semantic = np.repeat(rng.integers(7, size=rng.integers(3, 14)), 2)
        frames = (np.repeat(semantic, 2) + i % 2) % 6
        found.append(AcousticUtterance(semantic, np.stack([frames, 5 - frames, (frames + 1) % 6, frames]), f"s{i}"))
    return found


def stage(name, *, seconds=1.0, dedup=False, batch_size=4, seed=0):
    torch.manual_seed(seed)
    config = StageLMConfig(decoder=DECODER, window_seconds=seconds, dedup=dedup, tokens_per_second=6.0)
    lm = TokenLM(config, stage_layout(name, SIZES))
    return TokenLMStage(lm, utterances(), code_rate=12.5, frames_per_condition=2, batch_size=batch_size, seed=seed)


def decoded(training, step):
    batch = training.batch(step)
    return [
        training.layout.decode(ids[:length].numpy())
        for ids, length in zip(batch.ids, batch.lengths.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", STAGES)
def test_batches_are_a_function_of_seed_and_step(name):
    first, second, other = stage(name), stage(name), stage(name, seed=1)
    for step in (7, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(first.batch(step), second.batch(step), strict=True))
    assert any(not torch.equal(first.batch(step).lengths, other.batch(step).lengths) for step in range(5))


def test_rows_are_crops_and_the_coarse_prefix_is_what_the_target_says():
    pairs = stage("coarse").pairs
    for name in STAGES:
        training = stage(name)
        ends = set()
        for step in range(2 * POOL):
            for codes in decoded(training, step):
                ends.add(codes.ended)
                if name == "semantic":
                    assert 1 <= codes.target.shape[1] <= 12
                    if codes.ended:
                        n = codes.target.shape[1]
                        assert any(np.array_equal(codes.target[0], semantic[-n:]) for semantic, _ in pairs)
                elif name == "coarse":
                    # The toy's first level gives the semantic code away, but for the speaker's shift and modulo 6.
                    heard = [(codes.target[0][::2] - speaker) % 6 for speaker in (0, 1)]
                    assert any(np.array_equal(one, codes.prefix[0] % 6) for one in heard)
                    assert np.array_equal(codes.target[1], 5 - codes.target[0])
                else:
                    assert codes.prefix.shape == codes.target.shape
                    assert np.array_equal(codes.target[1], codes.prefix[0])
        assert ends == {"semantic": {True, False}, "coarse": {True}, "fine": {False}}[name]


@pytest.mark.parametrize("name", ["semantic", "coarse"])
def test_without_repeats_the_crops_are_the_same(name):
    for with_repeats, without in zip(decoded(stage(name), 0), decoded(stage(name, dedup=True), 0), strict=True):
        place = 1 if name == "semantic" else 0
        assert np.array_equal(remove_repeats(with_repeats[place][0])[0], without[place][0])
        assert name == "semantic" or np.array_equal(with_repeats.target, without.target)
        assert with_repeats.ended == without.ended


def test_noise_replaces_codes_by_others_of_their_level_and_nothing_else():
    for name in STAGES:
        training = stage(name)
        clean = training.batch(3)
        assert torch.equal(clean.read, clean.ids)
        training.code_noise = 1.0
        noisy = training.batch(3)
        assert torch.equal(noisy.ids, clean.ids)
        layout = training.layout
        for ids, start in zip(noisy.read, noisy.starts.tolist(), strict=True):
            assert ids[start - 1] == layout.bos_id
            for place, one in enumerate(ids[start:].tolist()):
                block = layout.vocabulary[layout.target_blocks[place % layout.num_levels]]
                assert block.start <= one < block.stop
        for before, after, start in zip(noisy.ids, noisy.read, noisy.starts.tolist(), strict=True):
            assert torch.equal(before[:start], after[:start])
        training.code_noise = 0.5
        half = training.batch(3)
        assert torch.equal(half.read, training.batch(3).read)


def test_speakers_are_joined_and_stay_in_time():
    rng = np.random.default_rng(0)

    def utterance(speaker, length, more):
        acoustic = np.full((2, 2 * length + more), int(speaker or 9))
        return AcousticUtterance(rng.integers(7, size=length), acoustic, speaker)

    found = [utterance(str(i % 2), 3 + i % 4, i % 3 - 1) for i in range(20)] + [utterance("", 4, 0)] * 2
    joined = join_speakers(found, 12, frames_per_condition=2, seed=0)
    assert sorted(one.speaker for one in joined if not one.speaker) == ["", ""]
    for one in joined:
        assert one.acoustic.shape[1] == 2 * len(one.semantic)
        assert one.speaker == "" or set(one.acoustic.ravel().tolist()) == {int(one.speaker)}
    long = [one for one in joined if len(one.semantic) >= 12]
    assert len(long) >= len(joined) - 4
    again = join_speakers(found, 12, frames_per_condition=2, seed=0)
    assert all(np.array_equal(a.semantic, b.semantic) for a, b in zip(joined, again, strict=True))


def test_an_epoch_has_every_utterance_once():
    training = stage("semantic", batch_size=1)
    # One pool and a half: 20 utterances are two and a half pools of eight rows.
    seen = [i for step in range(5 * POOL) for i in training._utterances(step)]
    assert sorted(seen) == sorted(2 * list(range(20)))


def test_the_loss_is_over_targets_alone():
    training = stage("coarse")
    batch = training.batch(0)
    loss, numbers = training.loss(batch)
    assert 0 <= numbers["accuracy"] <= 1
    scores = training.model(*batch)
    per_row = [len(codes.target.T) * 2 + 1 for codes in decoded(training, 0)]
    assert scores.is_target.sum(1).tolist() == per_row
    torch.testing.assert_close(loss, -scores.log_probs.sum() / sum(per_row))


def test_the_fine_stage_learns_what_follows_from_the_coarse_codes(tmp_path):
    training = stage("fine")
    loop = LoopConfig(
        steps=60, optimizer=OptimizerConfig(kind="muon", learning_rate=2e-2), warmup_steps=5, progress=False
    )
    train_stage(training, loop, tmp_path, heads=training.model.heads.parameters())
    training.model.eval()
    with torch.no_grad():
        accuracy = np.mean([training.loss(training.batch(step))[1]["accuracy"] for step in range(60, 64)])
    assert accuracy > 0.9


def test_the_voice_comes_from_the_prompt_and_is_drawn_where_there_is_none(tmp_path):
    # The second level is the first, for speaker 1 shifted by four: that says who speaks, and no semantic code does.
    rng = np.random.default_rng(0)

    def utterance(speaker, length):
        semantic = rng.integers(7, size=length)
        frames = np.repeat(semantic, 2)
        return AcousticUtterance(semantic, np.stack([frames, (frames + 4 * speaker) % 8]), str(speaker))

    config = AudioLMConfig(
        sizes=CodeSizes(num_conditions=7, codebook_size=8, num_codebooks=2, num_coarse=2),
        frame_rate=25.0,
        frames_per_condition=2,
        # One layer cannot look up what stood beside an earlier code.
        coarse=StageLMConfig(
            decoder=DecoderConfig(width=48, num_layers=2, num_heads=2, feed_forward=96), window_seconds=1.0
        ),
        prompt_seconds=0.3,
    )
    torch.manual_seed(0)
    model = AudioLM(config)
    corpus = [utterance(i % 2, 8) for i in range(200)]
    training = TokenLMStage(model.coarse, corpus, code_rate=12.5, frames_per_condition=2, batch_size=16, seed=0)
    loop = LoopConfig(
        steps=180, optimizer=OptimizerConfig(kind="muon", learning_rate=2e-2), warmup_steps=10, progress=False
    )
    train_stage(training, loop, tmp_path, heads=model.coarse.heads.parameters())
    prompts = [utterance(i % 2, 3) for i in range(12)]
    rows = [utterance(0, 5).semantic for _ in prompts]

    def speaker_1(voices):
        spoken = audiolm_codes(model, rows, voices, AcousticDecoding(), seed=0)
        return [float(np.mean((codes[1] - codes[0]) % 8 == 4)) for codes in spoken]

    voices = [VoicePrompt(prompt.semantic, prompt.acoustic) for prompt in prompts]
    assert np.mean(np.abs(np.array(speaker_1(voices)) - [0, 1] * 6)) < 0.1
    assert 0.1 < np.mean(speaker_1([None] * 12)) < 0.9


def test_no_utterances_is_said_in_one_line():
    training = stage("fine")
    with pytest.raises(DataError, match="no utterances"):
        TokenLMStage(training.model, [], code_rate=12.5, frames_per_condition=2, batch_size=1, seed=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)

    def sound():
        return encode_flac(Audio((rng.standard_normal(12_800) * 0.1).astype(np.float32), 16_000))

    prepare_corpus(
        [Record(id=f"r{i}", split="train", language="en", text="a", audio=sound()) for i in range(4)], folder
    )
    return folder


@pytest.fixture(scope="module")
def codec(corpus, tmp_path_factory):
    config = MelRVQConfig(mel=LogMelConfig(num_mels=8), num_codebooks=3, codebook_size=8, kmeans=KMeansConfig(passes=1))
    return train_codec(corpus, config, tmp_path_factory.mktemp("codec"), seed=0)


def run(seconds, *, dedup=False, steps=3):
    lm = StageLMConfig(decoder=DECODER, window_seconds=seconds, dedup=dedup)
    return StageTrainConfig(lm=lm, loop=LoopConfig(steps=steps, save_every=2, progress=False), batch_size=2)


RUN = AudioLMTrainConfig(
    num_codebooks=3, num_coarse=2, semantic=run(30.0, dedup=True), coarse=run(10.0, dedup=True), fine=run(3.0)
)
TOKENIZER = FakeSemanticTokenizer(16, frame_rate=12.5)


class KilledError(Exception):
    pass


def test_a_killed_run_ends_with_the_same_weights_and_the_model_speaks(corpus, codec, tmp_path, monkeypatch):
    whole, reports = train_audiolm(corpus, TOKENIZER, codec, RUN, tmp_path / "whole")
    assert {name: report.steps for name, report in reports.items()} == dict.fromkeys(STAGES, 3)
    batch = TokenLMStage.batch

    def killed(self, step):
        if self.layout.stage == "coarse" and step == 2:
            raise KilledError
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(TokenLMStage, "batch", killed)
        with pytest.raises(KilledError):
            train_audiolm(corpus, TOKENIZER, codec, RUN, tmp_path / "killed")
    _, reports = train_audiolm(corpus, TOKENIZER, codec, RUN, tmp_path / "killed")
    assert [reports[name].resumed_from for name in STAGES] == [3, 2, 0]
    loaded = AudioLM.from_pretrained(tmp_path / "killed")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])
    assert loaded.config.semantic.tokens_per_second == loaded.config.coarse.tokens_per_second
    assert 0 < loaded.config.code_rate(loaded.config.coarse) <= 12.5
    assert loaded.config.code_rate(loaded.config.fine) == 12.5
    audio = Audio(np.random.default_rng(9).standard_normal(16_000).astype(np.float32) * 0.1, 16_000)
    prompt = encode_voice(audio, TOKENIZER, codec, loaded, seconds=0.8)
    (spoken,) = continue_speech(loaded, [prompt], seconds=1.0, seed=0)
    assert spoken.acoustic_codes.shape[0] == 3
    assert spoken.acoustic_codes.shape[1] > spoken.num_prompt_frames == 20


def test_rows_may_start_at_vectors_and_speakers_be_joined(corpus, codec, tmp_path):
    def started(**changes):
        config = dataclasses.replace(RUN, semantic=None, coarse=run(10.0), fine=run(3.0), **changes)
        return train_audiolm(corpus, TOKENIZER, codec, config, tmp_path / str(len(changes)))[0]

    plain, changed = started(), started(row_init="centroid", join_speakers=True)
    assert changed.coarse.trunk.embed_tokens.weight.std() > 2 * plain.coarse.trunk.embed_tokens.weight.std()


def test_what_does_not_fit_is_refused(corpus, codec, tmp_path):
    with pytest.raises(ConfigError, match="whole multiple"):
        train_audiolm(corpus, FakeSemanticTokenizer(16, frame_rate=10.0), codec, RUN, tmp_path)
    with pytest.raises(ConfigError, match="the codec has 3"):
        train_audiolm(corpus, TOKENIZER, codec, dataclasses.replace(RUN, num_codebooks=4), tmp_path)
    with pytest.raises(ConfigError, match="fine is absent"):
        train_audiolm(corpus, TOKENIZER, codec, dataclasses.replace(RUN, fine=None), tmp_path)
