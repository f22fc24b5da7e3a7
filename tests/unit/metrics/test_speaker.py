from importlib.util import find_spec

import numpy as np
import pytest

from speechllm.audio import Audio, load_audio
from speechllm.errors import AudioError, ConfigError, DataError
from speechllm.metrics.speaker import make_speaker_embedder, speaker_similarity

SENTENCES = {"en-GB": ["she bought forty seven red apples", "turn off the light in the kitchen"]}
SENTENCES["de-DE"] = ["guten Morgen, wie geht es Ihnen", "das Fenster ist heute offen"]


@pytest.fixture(scope="module")
def voices() -> dict[str, list[Audio]]:
    from py_nanotts import NanoTTS

    engine, spoken = NanoTTS(), {}
    for name, pitch in (("en-GB", 0.8), ("de-DE", 1.3)):
        pcm = [engine.speak(text, voice=name, speed=1.0, pitch=pitch) for text in SENTENCES[name]]
        spoken[name] = [load_audio({"array": np.frombuffer(p, np.int16), "sampling_rate": 16_000}) for p in pcm]
    return spoken


@pytest.fixture(scope="module", params=["ge2e", "mel-pitch"])
def embedder(request):
    if request.param == "ge2e" and find_spec("resemblyzer") is None:
        pytest.skip("needs the weights in resemblyzer")
    return make_speaker_embedder(request.param)


def test_embeddings_have_length_one_and_do_not_hear_loudness(embedder, voices):
    audio = voices["en-GB"][0]
    vector = embedder.embed(audio)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    quiet = embedder.embed(Audio(audio.samples * 0.5, audio.sample_rate))
    assert vector @ quiet > 0.97


def test_same_voice_is_nearer_than_another(embedder, voices):
    english, german = voices["en-GB"], voices["de-DE"]
    same = speaker_similarity(embedder, [english[0], german[0]], [english[1], german[1]])
    other = speaker_similarity(embedder, [english[0], german[0]], [german[1], english[1]])
    assert same.value > other.value + 0.1
    assert (same.num_scored, same.num_failed) == (2, 0)


def test_failures_are_counted_with_a_reason(embedder, voices):
    silence = Audio(np.zeros(16_000, np.float32), 16_000)
    voice = voices["en-GB"][0]
    score = speaker_similarity(embedder, [voice, None, silence], [voice] * 3)
    assert score.value == pytest.approx(1, abs=1e-5)
    assert (score.num_scored, score.num_failed) == (1, 2)
    nothing = speaker_similarity(embedder, [None], [voice])
    assert (nothing.value, nothing.reason) == (None, "first problem: no audio")


def test_short_audio_is_refused(embedder):
    with pytest.raises(AudioError, match=r"at least 0\.4 s"):
        embedder.embed(Audio(np.random.default_rng(0).normal(size=1000).astype(np.float32), 16_000))


def test_bad_input(embedder):
    with pytest.raises(DataError, match="1 audios but 0 voices"):
        speaker_similarity(embedder, [None], [])
    with pytest.raises(ConfigError, match="did you mean 'ge2e'"):
        make_speaker_embedder("ge2")


def test_the_name_tells_which_was_measured():
    assert make_speaker_embedder("mel-pitch").name == "mel-pitch similarity"
