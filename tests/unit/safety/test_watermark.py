import io

import numpy as np
import pytest
import soundfile

from speechllm.audio import Audio, encode_flac, load_audio
from speechllm.errors import AudioError, ConfigError
from speechllm.safety import WatermarkConfig, detect_watermark, embed_watermark
from speechllm.safety.watermark import _istft, _stft

SENTENCES = [
    ("en-US", "the meeting starts at twenty one past nine"),
    ("fr-FR", "je voudrais trois pommes rouges s'il vous plaît"),
    ("de-DE", "guten Morgen, wie geht es Ihnen heute"),
    ("es-ES", "abre la segunda ventana por favor"),
    ("it-IT", "il treno parte alle nove e un quarto"),
]


@pytest.fixture(scope="module")
def speech() -> list[Audio]:
    """Five sentences of Pico speech, 2 to 3 s each."""
    from py_nanotts import NanoTTS

    engine = NanoTTS()
    spoken = [engine.speak(text, voice=voice, speed=0.9, pitch=1.0) for voice, text in SENTENCES]
    return [load_audio({"array": np.frombuffer(pcm, dtype=np.int16), "sampling_rate": 16_000}) for pcm in spoken]


def through_format(audio: Audio, name: str) -> Audio:
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples, audio.sample_rate, format=name)
    return load_audio(buffer.getvalue())


def with_noise(audio: Audio, ratio_db: float) -> Audio:
    noise = np.random.default_rng(0).normal(size=audio.num_samples)
    level = np.sqrt((audio.samples**2).mean()) * 10 ** (-ratio_db / 20)
    return Audio((audio.samples + level * noise).astype(np.float32), audio.sample_rate)


TRANSFORMATIONS = {
    "nothing": lambda audio: audio,
    "16-bit file": lambda audio: load_audio(encode_flac(audio)),
    "quieter": lambda audio: Audio(audio.samples * 0.2, audio.sample_rate),
    "up and down": lambda audio: audio.resampled(24_000).resampled(16_000),
    "stays at 44.1 kHz": lambda audio: audio.resampled(44_100),
    "start cropped": lambda audio: audio.cropped(0.2345, 99.0),
    "silence in front": lambda audio: Audio(np.pad(audio.samples, (4321, 0)), audio.sample_rate),
    "mp3": lambda audio: through_format(audio, "MP3"),
    "ogg vorbis": lambda audio: through_format(audio, "OGG"),
}


def test_stft_inverts():
    samples = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    np.testing.assert_allclose(_istft(_stft(samples), 5000), samples, atol=1e-5)  # float32 FFTs


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_mark_and_payload_survive(speech: list[Audio], name: str):
    for payload, audio in enumerate(speech, start=3):
        marked = embed_watermark(audio, payload)
        assert (marked.num_samples, marked.sample_rate) == (audio.num_samples, audio.sample_rate)
        assert detect_watermark(TRANSFORMATIONS[name](marked)).payload == payload


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 24_000, 48_000])
def test_any_sample_rate(speech: list[Audio], sample_rate: int):
    audio = Audio(np.concatenate([a.samples for a in speech[:3]]), 16_000).resampled(sample_rate)
    assert detect_watermark(embed_watermark(audio, 255)).payload == 255


def test_longer_audio_survives_noise(speech: list[Audio]):
    marked = embed_watermark(Audio(np.concatenate([a.samples for a in speech]), 16_000), 9)
    assert detect_watermark(with_noise(marked, 30)).payload == 9


def test_mark_is_far_below_the_speech(speech: list[Audio]):
    for audio in speech:
        mark = embed_watermark(audio).samples - audio.samples
        assert 10 * np.log10((audio.samples**2).sum() / (mark**2).sum()) > 14  # 14.5 dB is 2 dB in every cell


def test_speech_without_a_mark_has_none(speech: list[Audio]):
    for audio in speech:
        assert not detect_watermark(audio).present
        assert not detect_watermark(audio.resampled(22_050)).present
        assert not detect_watermark(with_noise(audio, 10)).present


def test_signals_that_are_no_speech_have_none():
    generator, t = np.random.default_rng(0), np.arange(48_000) / 16_000
    chirp = np.sin(2 * np.pi * (200 + 800 * t) * t)
    signals = [generator.normal(size=n) * 0.1 for n in (200, 2_000, 16_000, 48_000, 160_000)]
    signals += [np.sin(2 * np.pi * f * t) * 0.3 for f in (50, 440, 3_000)]
    signals += [chirp * 0.3, np.sign(chirp) * 0.3, (np.arange(48_000) % 4_000 == 0).astype(float)]
    signals += [chirp * (np.sin(2 * np.pi * t / 2.048) > 0) * 0.3]  # as periodic as the pattern itself
    for samples in signals:
        assert not detect_watermark(Audio(samples.astype(np.float32), 16_000)).present


def test_another_key_sees_nothing(speech: list[Audio]):
    marked = embed_watermark(speech[0], config=WatermarkConfig(key="mine"))
    assert not detect_watermark(marked).present
    assert detect_watermark(marked, WatermarkConfig(key="mine")).present


def test_silence_and_nothing_stay_as_they_are():
    for samples in (np.zeros(0, np.float32), np.zeros(16_000, np.float32)):
        audio = Audio(samples, 16_000)
        assert embed_watermark(audio) is audio
        assert not detect_watermark(audio).present


def test_marked_audio_is_the_same_every_time(speech: list[Audio]):
    np.testing.assert_array_equal(embed_watermark(speech[0], 1).samples, embed_watermark(speech[0], 1).samples)


def test_bad_input():
    with pytest.raises(ConfigError, match="256"):
        embed_watermark(Audio(np.ones(100, np.float32), 16_000), 256)
    with pytest.raises(ConfigError, match="strengths_db"):
        WatermarkConfig(strengths_db=())
    with pytest.raises(AudioError, match="NaN"):
        detect_watermark(Audio(np.full(100, np.nan, np.float32), 16_000))


def test_pieces_of_a_stream_carry_one_mark(speech: list[Audio]):
    """Two pieces that would each be too short to tell, marked where they stand, are found together."""
    whole = Audio(np.concatenate([audio.samples for audio in speech]), speech[0].sample_rate)
    length = int(0.9 * whole.sample_rate)
    pieces = [Audio(whole.samples[i : i + length], whole.sample_rate) for i in range(0, whole.num_samples, length)]
    marked = [
        embed_watermark(piece, payload=5, start_seconds=i * length / whole.sample_rate)
        for i, piece in enumerate(pieces)
    ]
    joined = Audio(np.concatenate([piece.samples for piece in marked]), whole.sample_rate)
    apart = [embed_watermark(piece, payload=5) for piece in pieces]
    misplaced = Audio(np.concatenate([piece.samples for piece in apart]), whole.sample_rate)
    assert detect_watermark(joined).payload == 5
    assert detect_watermark(joined).score > detect_watermark(misplaced).score
