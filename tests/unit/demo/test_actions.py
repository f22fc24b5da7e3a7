"""What the demo does, without a page."""

import numpy as np
import pytest

from speechllm.audio import save_audio
from speechllm.demo.actions import DRAWN, OTHER, SOURCE, Demo
from speechllm.demo.tokens import token_html
from speechllm.errors import AudioError, CheckpointError, ConsentError, TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.pipelines.system import SpeechSystem
from speechllm.safety import detect_watermark
from tests.support.tiny import tiny_acoustic, tiny_audiolm, tiny_checkpoint, tiny_speech


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("demo") / "tiny", acoustic=True))


@pytest.fixture(scope="module")
def demo(system):
    return Demo(system, decoding=DecodingConfig(max_text_tokens=20, min_audio_tokens=30, max_audio_seconds=4.0))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return str(save_audio(tiny_speech(2.0), tmp_path_factory.mktemp("audio") / "hello.wav"))


def test_a_recording_is_translated_and_spoken_with_its_mark(demo, system, recording):
    shown = demo.speech(recording, "translate and speak", "en", "fr")
    assert shown.transcript
    assert shown.translation
    assert detect_watermark(shown.audio).present
    assert shown.verdict.startswith("watermark found")
    again = system.run("[ASR AST S2ST English French]", [recording], decoding=demo.decoding)[0]
    assert (shown.transcript, shown.translation) == (again.texts["transcript"], again.texts["translation"])
    np.testing.assert_array_equal(shown.audio.samples, again.audio.samples)


def test_texts_alone_are_as_the_system_writes_them(demo, system, recording):
    heard = system.transcribe([recording], language="fr", decoding=demo.decoding)[0]
    assert demo.speech(recording, "transcribe", "fr", "fr").transcript == heard.text
    written = system.run("[MT English French]", ["good morning"], decoding=demo.decoding)[0]
    assert demo.text("good morning", "translate", "en", "fr").translation == written.text


def test_a_text_is_translated_and_spoken_in_two_steps(demo):
    shown = demo.text("good morning", "translate and speak", "en", "fr")
    assert [str(output.tag) for output in shown.outputs] == ["[MT English French]", "[TTS French]"]
    assert shown.audio is not None
    assert shown.translation == shown.outputs[0].text


@pytest.mark.parametrize("voice", [SOURCE, OTHER])
def test_no_voice_is_copied_without_consent(demo, recording, voice):
    for task in ("translate and speak", "translate speech to speech directly"):
        with pytest.raises(ConsentError):
            demo.speech(recording, task, "en", "fr", voice, recording, False)
    with pytest.raises(ConsentError):
        demo.text("good morning", "speak", "en", "fr", OTHER, recording, False)
    voiced = demo.speech(recording, "translate and speak", "en", "fr", voice, recording, True)
    plain = demo.speech(recording, "translate and speak", "en", "fr", DRAWN, recording, False)
    assert voiced.translation == plain.translation
    assert not np.array_equal(voiced.audio.samples, plain.audio.samples)


def test_compare_has_every_stage_and_every_acoustic_model(system, recording):
    codec, storm = tiny_acoustic()
    demo = Demo(system, rivals={"audiolm": tiny_audiolm(codec)})
    found = demo.compare(recording, "en")
    assert list(found) == ["original", "codec copy", "semantic codes", "semantic codes, audiolm"]
    lengths = [audio.duration_seconds for audio in found.values()]
    assert max(lengths) - min(lengths) < 0.2
    assert not np.array_equal(found["semantic codes"].samples, found["semantic codes, audiolm"].samples)
    storm.config = type(storm.config)(**{**vars(storm.config), "codec_fingerprint": "other"})
    with pytest.raises(CheckpointError, match="trained with codec other"):
        Demo(system, rivals={"storm": storm})


def test_what_is_missing_is_said(demo, recording, tmp_path):
    long = str(save_audio(tiny_speech(61.0), tmp_path / "long.wav"))
    with pytest.raises(AudioError, match="record or upload"):
        demo.speech(None, "transcribe", "en", "fr")
    with pytest.raises(AudioError, match="at most 60 s"):
        demo.speech(long, "transcribe", "en", "fr")
    with pytest.raises(TaskError, match="the same"):
        demo.speech(recording, "translate", "en", "en")
    with pytest.raises(TaskError, match="1 to 500"):
        demo.text(" ", "speak", "en", "fr")
    with pytest.raises(AudioError, match="recording of the voice"):
        demo.text("hello", "speak", "en", "fr", OTHER, None, True)


def test_tokens_show_every_id_and_no_markup_of_the_model(demo, system, recording):
    shown = demo.speech(recording, "translate and speak", "en", "fr")
    (output,) = shown.outputs
    written = token_html(system.processor, output)
    assert written.count("<span") == 1 + sum(len(decoded.ids) for decoded in output.decoded)
    assert written.count('class="audio"') == len(output.codes)
    outside = written.replace('<div class="tokens">', "").replace("</div>", "").replace("</span>", "")
    for kind in ("text", "audio", "mark"):
        outside = outside.replace(f'<span class="{kind}">', "")
    assert "<" not in outside
