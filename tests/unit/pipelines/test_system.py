"""The system: tasks in, outputs out, speech only with consent and marked."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from speechllm.audio import Audio, save_audio
from speechllm.errors import AudioError, CheckpointError, ConsentError, TaskError
from speechllm.generation.decoded import DecodeReport
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.hub import describe_checkpoint, load_checkpoint
from speechllm.pipelines.system import SpeechSystem
from speechllm.segments import CodeSegment, TextSegment
from tests.support.tiny import tiny_checkpoint, tiny_speech

SHORT = DecodingConfig(max_text_tokens=6, max_audio_seconds=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("system") / "checkpoint", acoustic=True)


@pytest.fixture(scope="module")
def system(folder: Path) -> SpeechSystem:
    return SpeechSystem.from_pretrained(folder, decoding=SHORT)


@pytest.fixture(scope="module")
def mute(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SpeechSystem:
    return SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("mute") / "checkpoint"), decoding=SHORT)


def test_every_field_of_a_combined_task(system: SpeechSystem):
    outputs = system.run("[ASR AST S2ST English French]", [tiny_speech(1.0), tiny_speech(0.6, seed=1)])
    assert len(outputs) == 2
    for output in outputs:
        assert list(output.segments) == ["transcript", "translation", "translated_audio"]
        assert isinstance(output.segments["transcript"], TextSegment)
        assert isinstance(output.segments["translated_audio"], CodeSegment)
        assert output.text == output.texts["translation"]
        assert output.codes is not None
        assert output.audio is not None
        # The tiny tokenizer has 12.5 codes per second.
        assert output.audio.duration_seconds == pytest.approx(len(output.codes) / 12.5, abs=0.05)
        assert output.is_watermarked
    assert DecodeReport.of(d for output in outputs for d in output.decoded).num_sequences == 2


def test_a_batch_equals_one_by_one(system: SpeechSystem):
    inputs = [tiny_speech(s, seed=i) for i, s in enumerate((0.5, 1.3, 0.9))]
    together = system.run("[ASR S2ST English French]", inputs)
    for audio, expected in zip(inputs, together, strict=True):
        (alone,) = system.run("[ASR S2ST English French]", [audio])
        assert alone.segments == expected.segments
        assert alone.audio is not None
        assert expected.audio is not None
        assert alone.audio.num_samples == expected.audio.num_samples


def test_encoded_once_is_the_same_for_every_task(system: SpeechSystem):
    inputs = [tiny_speech(s, seed=i) for i, s in enumerate((0.5, 45.0, 0.9))]
    encoded = system.encode(inputs)
    assert len(encoded[1].pieces) > 1, "long audio is cut at pauses"
    for tag in ("[ASR English]", "[AST English French]"):
        expected = system.run(tag, inputs)
        assert [o.segments for o in system.run(tag, encoded)] == [o.segments for o in expected]
        mixed = system.run(tag, [inputs[0], encoded[1], inputs[2]])
        assert [o.segments for o in mixed] == [o.segments for o in expected]


def test_candidates_speak_and_leave_other_tasks_alone(system: SpeechSystem):
    several = dataclasses.replace(SHORT, candidates=CandidatesConfig(count=3, sampling=SamplingConfig(temperature=1.0)))
    texts = ["turn on the lamp", "no"]
    spoken, greedy = (system.speak(texts, decoding=config) for config in (several, SHORT))
    for output in spoken:
        assert output.audio is not None
        assert output.is_watermarked
    assert [o.segments for o in spoken] != [o.segments for o in greedy]
    for tag, inputs in (("[S2ST English French]", [tiny_speech(0.5)]), ("[MT English French]", texts)):
        assert [o.segments for o in system.run(tag, inputs, decoding=several)] == [
            o.segments for o in system.run(tag, inputs, decoding=SHORT)
        ]
    chain = "[ASR AST S2ST English French]"
    (chosen,), (plain,) = (system.run(chain, [tiny_speech(0.5)], decoding=c) for c in (several, SHORT))
    assert chosen.texts == plain.texts, "only what is spoken is drawn"


def test_all_forms_of_audio_are_the_same(system: SpeechSystem, tmp_path: Path):
    audio = tiny_speech(0.7)
    path = save_audio(audio, tmp_path / "a.wav")
    array = {"array": audio.samples, "sampling_rate": audio.sample_rate}
    outputs = system.transcribe([audio, str(path), path, path.read_bytes(), array], language="fr")
    # 16-bit files round the samples, so these agree among each other, and the exact ones do.
    assert outputs[0].text == outputs[4].text
    assert outputs[1].text == outputs[2].text == outputs[3].text


def test_long_audio_is_the_sum_of_its_pieces(system: SpeechSystem):
    long = tiny_speech(50.0)
    (output,) = system.run("[ASR S2ST English French]", [long])
    pieces = output.decoded
    assert len(pieces) >= 3
    assert output.texts["transcript"] == " ".join(
        p.segments[0].text for p in pieces if isinstance(p.segments[0], TextSegment) and p.segments[0].text
    )
    codes = [p.segments[1].codes for p in pieces if isinstance(p.segments[1], CodeSegment)]
    assert np.array_equal(output.codes, np.concatenate(codes))
    assert output.score == pytest.approx(sum(p.score for p in pieces))


def test_text_in(system: SpeechSystem):
    (translated,) = system.translate(["good morning"], source="en", target="fr", text=True)
    assert list(translated.segments) == ["translation"]
    assert translated.audio is None
    (spoken,) = system.speak(["bonjour"], language="fr")
    assert spoken.text == ""
    assert spoken.audio is not None


def test_an_empty_translation_stays_silent_and_stops_nobody(system: SpeechSystem, monkeypatch: pytest.MonkeyPatch):
    run = SpeechSystem.run

    def with_an_empty_one(self, tag, inputs, **options):
        outputs = run(self, tag, inputs, **options)
        if str(tag).startswith("[MT"):
            outputs[1] = dataclasses.replace(outputs[1], segments={"translation": TextSegment(" ")})
        return outputs

    monkeypatch.setattr(SpeechSystem, "run", with_an_empty_one)
    voices = [tiny_speech(1.0, pitch=pitch) for pitch in (120.0, 180.0, 240.0)]
    texts = ["good morning", "...", "turn on the light"]
    options = {"source": "en", "target": "fr", "text": True, "speech": True, "consent": True}
    outputs = system.translate(texts, voice=voices, **options)
    assert [output.audio is None for output in outputs] == [False, True, False]
    assert [output.is_watermarked for output in outputs] == [True, False, True]
    (said,) = system.speak([outputs[2].text], language="fr", voice=voices[2], consent=True)
    assert outputs[2].audio is not None
    assert said.audio is not None
    assert np.array_equal(outputs[2].audio.samples, said.audio.samples), "in its own voice"
    with pytest.raises(TaskError, match="2 voices came with 3 inputs"):
        system.translate(texts, voice=voices[:2], **options)


def test_seeds(system: SpeechSystem):
    sampling = DecodingConfig(max_audio_seconds=0.8, audio=SamplingConfig(temperature=1.0))
    one, same, other = (system.speak(["bonjour"], decoding=sampling, seed=seed)[0].audio for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    assert np.array_equal(one.samples, same.samples)
    assert not np.array_equal(one.samples, other.samples)


def test_a_voice_needs_consent(system: SpeechSystem):
    voice = tiny_speech(1.0, pitch=220.0)
    with pytest.raises(ConsentError, match=r"me\.wav"):
        system.speak(["bonjour"], voice="me.wav")
    with pytest.raises(ConsentError):
        system.translate([voice], source="en", target="fr", speech=True, voice=voice)
    (plain,) = system.speak(["bonjour"], watermark=False)
    (prompted,) = system.speak(["bonjour"], voice=voice, consent=True, watermark=False)
    assert prompted.audio is not None
    assert plain.audio is not None
    assert prompted.audio.num_samples == plain.audio.num_samples
    assert not np.array_equal(prompted.audio.samples, plain.audio.samples)
    each = system.speak(["bonjour", "merci"], voice=[voice, tiny_speech(1.0)], consent=True)
    assert len(each) == 2
    with pytest.raises(TaskError, match="2 voices came with 1 inputs"):
        system.speak(["bonjour"], voice=[voice, voice], consent=True)


def test_the_watermark_can_be_switched_off(system: SpeechSystem):
    (marked,), (plain,) = (system.speak(["bonjour"], watermark=on) for on in (True, False))
    assert (marked.is_watermarked, plain.is_watermarked) == (True, False)
    assert marked.audio is not None
    assert plain.audio is not None
    assert not np.array_equal(marked.audio.samples, plain.audio.samples)


def test_without_acoustic_parts_there_is_no_speech(mute: SpeechSystem):
    assert not mute.can_speak
    (output,) = mute.run("[S2ST English French]", [tiny_speech(0.5)])
    assert output.audio is None
    assert output.codes is not None
    for call in (
        lambda: mute.speak(["bonjour"]),
        lambda: mute.translate([tiny_speech(0.5)], source="en", target="fr", speech=True),
        lambda: mute.synthesize([np.array([1, 2])]),
    ):
        with pytest.raises(CheckpointError, match="lacks codec/ and acoustic/"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.transcribe("a.wav"), TaskError, "inputs are one str, expected a list"),
        (lambda s: s.transcribe(["/nowhere.wav"]), AudioError, r"no audio file at /nowhere\.wav"),
        (lambda s: s.transcribe([b"not audio at all"]), AudioError, "audio of 16 bytes is not an audio file"),
        (lambda s: s.transcribe([Audio(np.zeros(0), 16_000)]), AudioError, "is empty"),
        (lambda s: s.transcribe([Audio(np.full(99, np.nan), 16_000)]), AudioError, "99 samples that are NaN"),
        (lambda s: s.transcribe([tiny_speech(0.5)], language="Frensh"), TaskError, "did you mean 'French'"),
        (lambda s: s.run("[ASX French]", [tiny_speech(0.5)]), TaskError, "unknown task 'ASX'"),
        (lambda s: s.speak(["fine", " "]), TaskError, "input 1 is ' ', expected a text"),
        (lambda s: s.run("[TTS French]", [tiny_speech(0.5)]), TaskError, "expected a text"),
    ],
)
def test_errors_name_what_was_given(system: SpeechSystem, call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call(system)


def test_parts_of_another_system_are_refused(folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    manifest = (copy / "speechllm.json").read_text()
    fingerprint = load_checkpoint(folder).codec.fingerprint
    (copy / "speechllm.json").write_text(manifest.replace(fingerprint, "f" * len(fingerprint)))
    with pytest.raises(CheckpointError, match=r"codec has fingerprint .* made with fff"):
        load_checkpoint(copy)


def test_description(folder: Path):
    lines = describe_checkpoint(folder)
    assert lines["vocabulary"].startswith("text 323, special 1, semantic 16")
    assert lines["acoustic"] == "yes"
    assert lines["codec"].startswith("yes (")


def test_nothing_in_nothing_out(system: SpeechSystem):
    assert system.transcribe([]) == []
    assert system.speak([]) == []
