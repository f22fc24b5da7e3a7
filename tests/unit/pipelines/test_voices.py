import dataclasses

import numpy as np
import pytest

from speechllm.audio import Audio
from speechllm.errors import AudioError, CheckpointError, ConfigError, ConsentError, TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.streaming_speech import StreamConfig
from speechllm.hub import load_checkpoint, save_checkpoint
from speechllm.models.soundstorm import SoundStorm
from speechllm.pipelines.system import SpeechSystem
from speechllm.pipelines.voices import (
    convert_voice,
    encode_speech,
    parse_dialogue,
    replace_speech,
    speak_dialogue,
    speak_streaming,
)
from speechllm.safety import embed_watermark
from tests.support.tiny import tiny_audiolm, tiny_checkpoint, tiny_speech

SHORT = DecodingConfig(max_text_tokens=6, max_audio_seconds=1.6)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("voices") / "checkpoint", acoustic=True)
    return SpeechSystem.from_pretrained(folder, decoding=SHORT)


def test_streaming_says_the_codes_of_every_text(system):
    texts = ["one two", "three", "four five six"]
    expected = [system.run("[TTS English]", [text], seed=0, sound=False)[0] for text in texts]
    assert all(output.audio is None for output in expected)
    audios = list(speak_streaming(system, texts, config=StreamConfig(first_seconds=0.4, seconds=0.8)))
    assert len(audios) > 2
    assert sum(a.num_samples for a in audios) == sum(len(output.codes) for output in expected) * 1_280


def test_a_text_is_read_when_its_turn_comes(system):
    taken = []

    def texts():
        for number in range(50):
            taken.append(number)
            yield f"number {number}"

    config = StreamConfig(first_seconds=0.4, seconds=0.8, lookahead_seconds=0.16)
    next(speak_streaming(system, texts(), config=config))
    assert len(taken) < 10


def test_a_codec_of_another_system_is_refused_before_the_first_piece(system):
    checkpoint = system.checkpoint
    config = dataclasses.replace(checkpoint.acoustic.config, codec_fingerprint="another")
    acoustic = SoundStorm(config)
    mixed = SpeechSystem(dataclasses.replace(checkpoint, acoustic=acoustic), decoding=SHORT)
    with pytest.raises(CheckpointError, match="trained with codec another"):
        speak_streaming(mixed, ["one two"])


def test_the_mark_goes_on_from_piece_to_piece(system, monkeypatch):
    starts, lengths = [], []
    from speechllm.pipelines import voices

    def spy(audio, *, start_seconds):
        starts.append(start_seconds)
        lengths.append(audio.duration_seconds)
        return audio

    monkeypatch.setattr(voices, "embed_watermark", spy)
    list(speak_streaming(system, ["one two", "three"], config=StreamConfig(first_seconds=0.4, seconds=0.8)))
    assert starts == pytest.approx([0.0, *np.cumsum(lengths)[:-1]])


def test_conversion_keeps_length_and_takes_the_voice(system):
    sources = [tiny_speech(1.0), tiny_speech(1.7, seed=1)]
    one, other = (
        convert_voice(system, sources, voice=tiny_speech(2.0, pitch=pitch, seed=9), consent=True)
        for pitch in (120.0, 300.0)
    )
    codes = system.semantic_tokenizer().encode(sources)
    assert [a.num_samples for a in one] == [len(c) * 1_280 for c in codes]
    assert not np.array_equal(one[0].samples, other[0].samples)


def test_replacing_a_span_keeps_the_codes_around_it(system):
    recording = tiny_speech(4.0)
    speech = encode_speech(system, recording)
    (said,) = system.run("[TTS English]", ["hello"], seed=0, sound=False)
    mended = replace_speech(system, recording, 1.6, 2.4, "hello", consent=True)
    assert mended.num_samples == (len(speech.semantic_codes) - 10 + len(said.codes)) * 1_280
    inserted = replace_speech(system, recording, 1.6, 1.6, "hello", consent=True)
    assert inserted.num_samples == mended.num_samples + 10 * 1_280


def test_a_dialogue_has_its_turns_in_place(system):
    script = "Ann: good morning\n\nBob: good evening to you\nAnn: bye"
    names = {"Ann": tiny_speech(1.0, pitch=120.0), "Bob": tiny_speech(1.0, pitch=250.0)}
    dialogue = speak_dialogue(system, script, names, consent=True, pause_seconds=0.5)
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == [
        ("Ann", "good morning"), ("Bob", "good evening to you"), ("Ann", "bye"),
    ]  # fmt: skip
    for turn, after in zip(dialogue.turns, dialogue.turns[1:], strict=False):
        assert after.start_seconds - turn.stop_seconds == pytest.approx(0.5, abs=1e-3)
        assert turn.stop_seconds > turn.start_seconds
    assert dialogue.audio.duration_seconds == pytest.approx(dialogue.turns[-1].stop_seconds, abs=1e-3)
    alone = system.speak(["good morning"], voice=names["Ann"], consent=True, watermark=False)[0].audio
    assert dialogue.turns[0].stop_seconds == pytest.approx(alone.duration_seconds, abs=1e-3)


def with_marks(system, num_speakers=2):
    """Return the system with a SoundStorm that tells speakers apart."""
    acoustic = SoundStorm(dataclasses.replace(system.checkpoint.acoustic.config, num_speakers=num_speakers)).eval()
    return SpeechSystem(dataclasses.replace(system.checkpoint, acoustic=acoustic), decoding=SHORT)


def test_a_checkpoint_without_marks_speaks_turn_by_turn_and_says_so(system):
    script, voices = "A: good morning\nB: good evening", {"A": tiny_speech(1.0), "B": tiny_speech(1.0, pitch=250.0)}
    dialogue = speak_dialogue(system, script, voices, consent=True, pause_seconds=0.0)
    assert not dialogue.in_one_pass
    alone = system.speak(
        ["good morning", "good evening"], voice=list(voices.values()), consent=True, watermark=False, seed=0
    )
    joined = Audio(np.concatenate([output.audio.samples for output in alone]), 16_000)
    assert np.array_equal(dialogue.audio.samples, embed_watermark(joined).samples)
    with pytest.raises(ConfigError, match="marks for 1"):
        speak_dialogue(system, script, voices, consent=True, in_one_pass=True)


def test_a_checkpoint_with_marks_makes_all_turns_in_one_pass(system):
    marked, voices = with_marks(system), {"A": tiny_speech(1.0), "B": tiny_speech(1.0, pitch=250.0)}
    script = "A: good morning\nB: good evening to you\nA: bye"
    dialogue = speak_dialogue(marked, script, voices, consent=True, pause_seconds=0.5)
    assert dialogue.in_one_pass
    by_turns = speak_dialogue(marked, script, voices, consent=True, pause_seconds=0.5, in_one_pass=False)
    assert not by_turns.in_one_pass
    # The same codes said at the same times: only the sound is made otherwise.
    assert list(dialogue.turns) == list(by_turns.turns)
    assert dialogue.audio.num_samples == by_turns.audio.num_samples
    assert not np.array_equal(dialogue.audio.samples, by_turns.audio.samples)
    three = "\n".join(f"{name}: hello" for name in "ABC")
    assert not speak_dialogue(marked, three, {**voices, "C": tiny_speech(1.0)}, consent=True).in_one_pass
    with pytest.raises(ConfigError, match="marks for 2"):
        speak_dialogue(marked, three, {**voices, "C": tiny_speech(1.0)}, consent=True, in_one_pass=True)


def test_one_turn_is_plain_speech(system):
    marked, voice = with_marks(system), tiny_speech(1.0)
    dialogue = speak_dialogue(marked, "A: good morning", {"A": voice}, consent=True)
    assert dialogue.in_one_pass
    alone = marked.speak(["good morning"], voice=voice, consent=True, seed=0)[0].audio
    assert np.array_equal(dialogue.audio.samples, alone.samples)


def test_a_voice_needs_consent(system):
    voice = tiny_speech(1.0)
    for attempt in (
        lambda: speak_streaming(system, ["a"], voice=voice),  # before anything is asked of the iterator
        lambda: convert_voice(system, [voice], voice=voice, consent=False),
        lambda: replace_speech(system, voice, 0.1, 0.2, "a", consent=False),
        lambda: speak_dialogue(system, "A: a", {"A": voice}, consent=False),
    ):
        with pytest.raises(ConsentError):
            attempt()


def test_a_turn_without_speech_is_no_silence(system, monkeypatch):
    from dataclasses import replace

    run = SpeechSystem.run
    monkeypatch.setattr(
        SpeechSystem, "run", lambda self, *a, **k: [replace(output, segments={}) for output in run(self, *a, **k)]
    )
    with pytest.raises(TaskError, match="no speech for 'hi'"):
        speak_dialogue(system, "Bob: hi", {"Bob": tiny_speech(1.0)}, consent=True)


def test_what_cannot_be_done_is_said_in_one_line(system, tmp_path):
    voice = tiny_speech(1.0)
    for span in ((0.5, 0.2), (-0.1, 0.2), (0.5, 1.5)):
        with pytest.raises(AudioError, match=r"is not inside the recording of 1\.00 s"):
            replace_speech(system, voice, *span, "a", consent=True)
    with pytest.raises(TaskError, match="did you mean 'Bob'"):
        speak_dialogue(system, "Bop: hi", {"Bob": voice}, consent=True)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        speak_dialogue(system, "Bob: hi", {"Bob": voice}, consent=True, pause_seconds=-1.0)
    for script, message in (("hello", "line 1"), ("A: x\n: y", "line 2"), ("A:", "line 1"), (" \n", "no turns")):
        with pytest.raises(TaskError, match=message):
            parse_dialogue(script)
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "storm", acoustic=True))
    audiolm = save_checkpoint(
        tmp_path / "audiolm", checkpoint.model, checkpoint.processor, codec=checkpoint.codec,
        acoustic=tiny_audiolm(checkpoint.codec),
    )  # fmt: skip
    other = SpeechSystem.from_pretrained(audiolm, decoding=SHORT)
    with pytest.raises(ConfigError, match="use one with SoundStorm"):
        replace_speech(other, voice, 0.1, 0.2, "a", consent=True)
    with pytest.raises(ConfigError, match="cannot make a dialogue in one pass"):
        speak_dialogue(other, "A: hi", {"A": voice}, consent=True, in_one_pass=True)
    assert not speak_dialogue(other, "A: hi", {"A": voice}, consent=True).in_one_pass
