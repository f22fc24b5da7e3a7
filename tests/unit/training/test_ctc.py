"""CTC training: batches from (seed, step), every utterance once per epoch, augmentation keeps its promises."""

import numpy as np
import pytest
import torch

from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.errors import DataError
from speechllm.nn.conformer import ConformerConfig
from speechllm.tokenizers.ctc_encoder import CTCFeatures, load_ctc_encoder
from speechllm.training.ctc import AugmentConfig, CTCStage, CTCTrainConfig, augment, train_ctc_encoder
from speechllm.training.loop import LoopConfig
from speechllm.training.optim import OptimizerConfig

OFF = AugmentConfig(tempo=0.0, frequency_warp=0.0, num_band_masks=0, num_time_masks=0)
FLOOR = -11.5


def config(**changes):
    options = {
        "num_mels": 20,
        "stem_width": 16,
        "batch_size": 4,
        "trunk": ConformerConfig(width=32, num_layers=1, num_heads=2),
        "loop": LoopConfig(
            steps=4, progress=False, optimizer=OptimizerConfig(kind="muon", learning_rate=1e-2), warmup_steps=3
        ),
    } | changes
    return CTCTrainConfig(**options)


def spectrograms(count=10, num_mels=20):
    generator = torch.Generator().manual_seed(0)
    mels = [torch.randn(num_mels, 60 + 7 * i, generator=generator).half() for i in range(count)]
    return mels, ["ab a", "b"] * (count // 2)


def test_batch_is_a_function_of_seed_and_step():
    first, again = CTCStage(*spectrograms(), config()), CTCStage(*spectrograms(), config())
    again.batch(7)
    for name, value in first.batch(3).items():
        assert torch.equal(value, again.batch(3)[name])
    assert not torch.equal(first.batch(3)["lengths"], first.batch(4)["lengths"])


def test_an_epoch_has_every_utterance_once():
    stage = CTCStage(*spectrograms(), config())
    for epoch in range(3):
        indices = np.concatenate([stage._utterances(step) for step in range(3 * epoch, 3 * epoch + 3)])
        assert sorted(indices.tolist()) == list(range(10))


def test_texts_that_do_not_fit_are_counted_and_refused_if_all():
    mels, texts = spectrograms()
    # 60 + 7 i frames of 10 ms are 8 frames or more of 80 ms, 24 symbols or more; equal neighbours need a blank between.
    texts[:3] = ["ab" * 12, "ab" * 20, "a" * 14]
    stage = CTCStage(mels, texts, config(augment=OFF, batch_size=10))
    assert stage.loss(stage.batch(0))[1] == {"share_too_short": pytest.approx(0.1)}
    assert sorted(stage.batch(0)["needed"].tolist())[-3:] == [24, 27, 40]
    with pytest.raises(DataError, match=r"each of 10 texts is longer .* first needs 200, gets 24\)"):
        CTCStage(mels, ["ab" * 100] * 10, config())


def test_augment_off_only_pads():
    mels = [mel.float() for mel in spectrograms(4)[0]]
    mel, lengths = augment(mels, OFF, 8, FLOOR, torch.Generator())
    assert lengths.tolist() == [60, 67, 74, 81]
    assert mel.shape == (4, 20, 96)
    for row, original, length in zip(mel, mels, lengths.tolist(), strict=True):
        torch.testing.assert_close(row[:, :length], original, atol=1e-4, rtol=0)
        assert (row[:, length:] == FLOOR).all()


def test_augment_stays_in_its_bounds_and_off_the_padding():
    mels = [torch.zeros(40, 200) for _ in range(16)]
    setting = AugmentConfig(tempo=0.25)
    mel, lengths = augment(mels, setting, 8, FLOOR, torch.Generator().manual_seed(1))
    assert lengths.min() >= 160
    assert lengths.max() <= 250
    assert len(lengths.unique()) > 8
    inside = torch.arange(mel.shape[2])[None] < lengths[:, None]
    assert (mel.transpose(1, 2)[~inside] == FLOOR).all()
    # Silence never leaks in: warped zeros stay zeros, and the mean that fills masks is zero, too.
    assert mel.transpose(1, 2)[inside].abs().max() < 1e-4


def test_masks_hide_the_stated_share_at_most():
    mels = [torch.randn(40, 200, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    setting = AugmentConfig(tempo=0.0, frequency_warp=0.0, num_band_masks=0, num_time_masks=2, time_mask=0.1)
    mel, _ = augment(mels, setting, 8, FLOOR, torch.Generator().manual_seed(0))
    hidden = (mel[..., :200].std(dim=1) < 1e-6).float().mean(1)
    assert 0 < hidden.mean() < 0.2
    assert hidden.max() <= 0.21


def speech(text, seed):
    """One note per letter, 160 ms each."""
    pitches = {"a": 300.0, "b": 900.0, " ": 0.0}
    frequency = np.repeat([pitches[c] for c in text], 2_560) * (1 + 0.05 * seed)
    return encode_flac(Audio(0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / 16_000).astype(np.float32), 16_000))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("ab "), size=6)).strip() or "a" for _ in range(24)]
    words = [" ".join(word.split()) for word in words]
    folder = tmp_path_factory.mktemp("corpus")
    prepare_corpus(
        [
            Record(
                id=f"r{i}", split="train", language="en", text=word, audio=speech(word, i % 3),
                translation=Translation("fr", word[::-1].strip(), speech(word[::-1].strip(), i % 3)),
            )
            for i, word in enumerate(words)
        ],
        folder,
    )  # fmt: skip
    return folder, words


def test_it_learns_to_spell_and_resumes(corpus, tmp_path):
    folder, words = corpus
    loop = LoopConfig(
        steps=80, progress=False, optimizer=OptimizerConfig(kind="muon", learning_rate=1e-2), warmup_steps=5
    )
    setting = config(loop=loop, augment=OFF, batch_size=8)
    encoder, report = train_ctc_encoder(folder, setting, tmp_path)
    assert encoder.config.symbols == " ab"
    assert report.losses[-1] < 0.3 * report.losses[0]
    from speechllm.audio import load_audio

    features = CTCFeatures(load_ctc_encoder(tmp_path / "encoder"))
    heard = [features.transcribe(load_audio(speech(word, 0))) for word in words]
    assert np.mean([a == b for a, b in zip(heard, words, strict=True)]) > 0.5
    _, again = train_ctc_encoder(folder, setting, tmp_path)
    assert again.resumed_from == again.steps == 80


def test_a_corpus_without_text_is_refused(tmp_path):
    prepare_corpus([Record(id="a", split="train", language="en", audio=speech("ab", 0))], tmp_path / "corpus")
    with pytest.raises(DataError, match="CTC needs transcripts"):
        train_ctc_encoder(tmp_path / "corpus", config(), tmp_path / "run")
