import numpy as np
import pytest

from speechllm.audio import Audio
from speechllm.errors import CheckpointError, DataError
from speechllm.evaluation.resynthesis import mel_distance, resynthesize
from speechllm.metrics.speaker import MelPitchEmbedder
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_checkpoint, tiny_speech
from tests.support.toy_speech import WORDS, ToyJudge, tone


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("r") / "checkpoint", acoustic=True))


def scores_of(report):
    return {stage.name: {score.name: score for score in stage.scores} for stage in report.stages}


def test_every_stage_is_scored_against_the_original(system):
    audios = [tiny_speech(1.0), tiny_speech(1.5, seed=1)]
    report = resynthesize(system.parts, audios, language="en", judge=None, embedder=MelPitchEmbedder())
    assert [stage.name for stage in report.stages] == ["original", "codec copy", "semantic codes"]
    found = scores_of(report)
    assert found["original"] == {}
    for name in ("codec copy", "semantic codes"):
        assert set(found[name]) == {MelPitchEmbedder().name, "log-mel distance"}
        assert found[name]["log-mel distance"].num_scored == 2
    # A codec that was fitted to such sound against a random SoundStorm.
    copy, codes = (found[name]["log-mel distance"].value for name in ("codec copy", "semantic codes"))
    assert 0 < copy < codes


def test_intelligibility_is_measured_against_texts_or_the_original(system):
    audios = [tone("en", 0), tone("en", 2)]
    judge = ToyJudge("en")
    given = resynthesize(system.parts, audios, language="en", judge=judge, embedder=None, texts=[WORDS["en"][0]] * 2)
    assert given.reference == "given texts"
    assert scores_of(given)["original"]["WER"].value > 0, "the second text is wrong on purpose"
    heard = resynthesize(system.parts, audios, language="en", judge=judge, embedder=None)
    assert heard.reference == "what the judge hears in the original"
    assert scores_of(heard)["original"] == {}
    assert "asr:toy-judge" in scores_of(heard)["codec copy"]["CER"].signature


def test_mel_distance_knows_equal_louder_and_other_sound():
    sound, other = tiny_speech(1.0), tiny_speech(1.0, seed=5)
    louder = Audio(sound.samples * 0.5, sound.sample_rate)
    assert mel_distance([sound], [sound]).value == pytest.approx(0, abs=1e-6)
    assert mel_distance([sound], [louder]).value == pytest.approx(0, abs=1.0)
    assert mel_distance([sound], [other]).value > 3
    empty = mel_distance([sound, sound], [Audio(np.zeros(0, np.float32), 16_000), sound])
    assert (empty.num_scored, empty.num_failed) == (1, 1)


def test_silence_does_not_bias_the_loudness():
    """The copy is the sound at half its level, with an inaudible hiss where the original has digital silence."""
    sound = tiny_speech(1.0)
    original = np.concatenate([sound.samples, np.zeros(16_000, np.float32)])
    hiss = 3e-6 * np.random.default_rng(0).standard_normal(len(original)).astype(np.float32)
    originals, copies = ([Audio(samples, 16_000)] for samples in (original, 0.5 * original + hiss))
    assert mel_distance(originals, copies).value < 1.0


def test_wrong_numbers_of_texts_and_mute_checkpoints_are_refused(system, tmp_path):
    with pytest.raises(DataError, match="1 recordings and 2 texts"):
        resynthesize(system.parts, [tiny_speech()], language="en", judge=None, embedder=None, texts=["a", "b"])
    with pytest.raises(DataError, match="0 recordings"):
        resynthesize(system.parts, [], language="en", judge=None, embedder=None)
    mute = SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path / "mute"))
    with pytest.raises(CheckpointError, match="cannot make sound"):
        resynthesize(mute.parts, [tiny_speech()], language="en", judge=None, embedder=None)
