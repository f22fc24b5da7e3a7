import os
from types import SimpleNamespace

import numpy as np
import pytest

from speechllm.audio import Audio, load_audio
from speechllm.errors import ConfigError
from speechllm.evaluation.judges import (
    JudgeConfig,
    Judges,
    MoonshineJudge,
    WhisperJudge,
    make_judges,
    shares_tokens,
)
from tests.support.tiny import tiny_speech
from tests.support.tiny_whisper import tiny_whisper
from tests.support.toy_speech import ToyJudge

SILENCE = Audio(np.zeros(16_000, np.float32), 16_000)


def spoken(text: str, voice: str) -> Audio:
    from py_nanotts import NanoTTS

    pcm = NanoTTS().speak(text, voice=voice, speed=1.0, pitch=1.0)
    return load_audio({"array": np.frombuffer(pcm, dtype=np.int16), "sampling_rate": 16_000})


@pytest.fixture(scope="module")
def moonshine() -> MoonshineJudge:
    return MoonshineJudge()


def test_moonshine_hears_english(moonshine: MoonshineJudge):
    audio = spoken("please open the second window", "en-US")
    padded = Audio(np.pad(audio.samples, (16_000, 8_000)), 16_000).resampled(24_000)
    expected = "please open the second window"
    heard = moonshine.transcribe([audio, padded], "en")
    assert [str(text).lower().strip(".") for text in heard] == [expected, expected]


def test_what_cannot_be_heard_is_none(moonshine: MoonshineJudge):
    blip = Audio(np.ones(100, np.float32), 16_000)
    assert moonshine.transcribe([SILENCE, blip, b"no audio"], "en") == [None, None, None]


def test_english_only(moonshine: MoonshineJudge):
    assert moonshine.speaks("en")
    assert not moonshine.speaks("fr")


def test_each_language_has_its_judge_or_a_reason():
    judges = Judges(ToyJudge("en"), ToyJudge("fr"))
    assert judges.for_language("French") is judges.others
    assert judges.for_language("de") is None
    assert judges.why_none("de") == "not judged: toy-judge does not know German"
    assert "set judge.whisper" in Judges().why_none("fr")
    assert "English" in Judges().why_none("en")


@pytest.mark.parametrize(("source", "shares"), [("openai/whisper-base", True), ("facebook/hubert-base-ls960", False)])
def test_a_judge_of_the_tokenizers_family_is_circular(source: str, shares: bool):
    features = SimpleNamespace(config=SimpleNamespace(source=source))
    processor = SimpleNamespace(semantic_tokenizer=SimpleNamespace(feature_extractor=features))
    judge = ToyJudge("fr", name="whisper-base")
    assert shares_tokens(judge, SimpleNamespace(processor=processor)) is shares
    assert shares_tokens(judge, SimpleNamespace(processor=None)) is False


def test_english_by_a_whisper_that_is_not_named_is_refused():
    with pytest.raises(ConfigError, match=r"name the checkpoint in judge\.whisper"):
        make_judges(JudgeConfig(english="whisper"))


class CountingWhisper(WhisperJudge):
    """Writes the seconds of each piece that the model gets."""

    def _generate(self, samples, language):
        return [f"{len(piece) / 16_000:.0f}" for piece in samples]


def test_whisper_hears_all_of_long_speech(tmp_path):
    judge = CountingWhisper(str(tiny_whisper(tmp_path / "whisper")), batch_size=2)
    heard = judge.transcribe([tiny_speech(70.0), SILENCE, tiny_speech(5.0)], "en")
    seconds = [int(part) for part in str(heard[0]).split()]
    assert len(seconds) >= 3
    assert max(seconds) <= 30
    assert sum(seconds) == pytest.approx(70, abs=2)
    assert heard[1:] == [None, "5"]


@pytest.mark.assets
@pytest.mark.slow
def test_whisper_hears_french():
    folder = os.environ.get("SPEECHLLM_WHISPER_BASE") or pytest.skip("SPEECHLLM_WHISPER_BASE is not set")
    judge = WhisperJudge(folder)
    assert judge.name == "whisper-base"
    assert judge.speaks("fr")
    heard = judge.transcribe([spoken("je voudrais trois pommes rouges", "fr-FR"), SILENCE], "fr")
    assert "je voudrais trois pommes rouge" in str(heard[0]).lower()
    assert heard[1] is None


def test_a_second_judge_hears_english_alone():
    both = Judges(ToyJudge("en"), ToyJudge("fr"), second=ToyJudge("en", name="other"))
    assert [judge.name for judge in both.all_for("en")] == ["toy-judge", "other"]
    assert [judge.name for judge in both.all_for("fr")] == ["toy-judge"]
    assert both.all_for("de") == []
    with pytest.raises(ConfigError, match=r"is .both. and judge"):
        make_judges(JudgeConfig(english="both"))
