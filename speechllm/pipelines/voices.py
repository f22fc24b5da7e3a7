"""What else a checkpoint that speaks can do: speak while it computes, take a voice, mend a word, hold a dialogue.

    for audio in speak_streaming(system, ["good morning", "turn on the lamp"]): player.write(audio.samples)
    convert_voice(system, ["me.wav"], voice="you.wav", consent=True)                    # my words, your voice
    replace_speech(system, "me.wav", 1.2, 1.9, "tomorrow", language="en", consent=True) # one word said anew
    speak_dialogue(system, "A: good morning\\nB: good evening", {"A": "me.wav", "B": "you.wav"}, consent=True)

All are functions of a `SpeechSystem`; whatever copies a voice asks for consent, and all that is made carries the
watermark. (Voice conversion and dialogues: SoundStorm, arXiv:2305.09636. There a model that was trained on dialogues
makes all turns in one pass. So it is here if the checkpoint's SoundStorm tells speakers apart; any other checkpoint
says each turn on its own with the voice of its speaker. `Dialogue.in_one_pass` tells which it was.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import AudioError, ConfigError, TaskError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.cascade import decode_codes, require_match
from speechllm.generation.streaming_speech import StreamConfig, stream_speech
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm
from speechllm.pipelines.system import SpeechSystem
from speechllm.registry import suggest
from speechllm.safety import embed_watermark, require_consent
from speechllm.tasks import TaskTag


def speak_streaming(
    system: SpeechSystem,
    texts: Iterable[str],
    *,
    language: str = "en",
    voice: AudioSource | None = None,
    consent: bool = False,
    seed: int = 0,
    config: StreamConfig | None = None,
) -> Iterator[Audio]:
    """Return an iterator over the (watermarked) speech of texts, piece by piece; a text is read when its turn comes.

    The LM writes the codes of one text at a time, sound is made in pieces of some seconds (`StreamConfig`): memory does
    not grow with the number of texts, and the first sound needs the first text's codes and one short piece.

    Args:
        system: a checkpoint that can speak.
        texts: sentences, in order; may be a generator.
        language: of the texts.
        voice: some seconds of a voice, or None: one is drawn and kept.
        consent: the statement that the speaker of `voice` agreed.
        seed: of all draws.
        config: sizes of the pieces.

    Raises:
        ConsentError: a voice without consent; at once, as all that is wrong with the checkpoint or the voice.
        CheckpointError: the checkpoint cannot speak, or its acoustic model was trained with another codec.
        TaskError: a text is empty; when its turn comes.
    """
    if voice is not None:
        require_consent(consent)
    acoustic, codec = system.sound_parts()
    require_match(acoustic, codec)
    tag = TaskTag.of("TTS", language)

    def pieces() -> Iterator[np.ndarray]:
        for text in texts:
            (output,) = system.run(tag, [text], seed=seed, sound=False)
            yield np.zeros(0, np.int64) if output.codes is None else output.codes

    prompt = system.voice_prompts(voice, 1)
    return marked(stream_speech(pieces(), acoustic, codec, voice=prompt, seed=seed, config=config))


def marked(audios: Iterable[Audio]) -> Iterator[Audio]:
    """Yield the pieces of a stream with one watermark that goes on from piece to piece."""
    num_samples = 0
    for audio in audios:
        yield embed_watermark(audio, start_seconds=num_samples / audio.sample_rate)
        num_samples += audio.num_samples


def convert_voice(
    system: SpeechSystem,
    audios: Sequence[AudioSource],
    *,
    voice: AudioSource,
    consent: bool,
    seed: int = 0,
) -> list[Audio]:
    """Return what each audio says, and when, in the voice of another: its semantic codes behind that voice's prompt.

    Raises:
        ConsentError: without consent of the voice's owner.
        AudioError: an audio cannot be read or is empty.
    """
    require_consent(consent)
    codes = system.semantic_tokenizer().encode([load_audio(audio) for audio in audios])
    return [embed_watermark(audio) for audio in system.synthesize(codes, voice=voice, seed=seed)]


def replace_speech(
    system: SpeechSystem,
    audio: AudioSource,
    start_seconds: float,
    stop_seconds: float,
    text: str,
    *,
    language: str = "en",
    consent: bool,
    seed: int = 0,
) -> Audio:
    """Return the recording with a span said anew as `text`; the codes of all the rest are kept.

    The LM says `text`, SoundStorm gives it the sound of what stands around it. The whole passes through the codec.

    Args:
        system: a checkpoint with SoundStorm.
        audio: the recording.
        start_seconds: start of the span; it is rounded to a semantic code.
        stop_seconds: end of the span; equal to the start, the text is inserted.
        text: what to say there.
        language: of the text.
        consent: the statement that the speaker of the recording agreed.
        seed: of all draws.

    Raises:
        ConsentError: without consent.
        AudioError: the span is not inside the recording.
        ConfigError: the checkpoint speaks by AudioLM, which cannot fill a gap.
        TaskError: the text is empty, or the LM had no speech for it.
    """
    from speechllm.generation.soundstorm_stage import infill_codes

    require_consent(consent, "the recording")
    acoustic, codec = system.sound_parts()
    if not isinstance(acoustic, SoundStorm):
        raise ConfigError(f"a {acoustic.kind} checkpoint cannot replace a span; use one with SoundStorm")
    recording = load_audio(audio)
    if not 0 <= start_seconds <= stop_seconds <= recording.duration_seconds:
        raise AudioError(
            f"the span {start_seconds} to {stop_seconds} s is not inside the recording of "
            f"{recording.duration_seconds:.2f} s; give its start and end in order"
        )
    speech = encode_speech(system, recording)
    rate = codec.frame_rate / acoustic.config.frames_per_condition
    total = len(speech.semantic_codes)
    span = min(round(start_seconds * rate), total), min(round(stop_seconds * rate), total)
    (said,) = system.run(TaskTag.of("TTS", language), [text], seed=seed, sound=False)
    if said.codes is None or len(said.codes) == 0:
        raise TaskError(f"the model wrote no speech for {text!r}; try another seed or a longer text")
    codes = infill_codes(acoustic, speech, span, said.codes, AcousticDecoding(), seed=seed)
    (mended,) = decode_codes([codes], codec)
    return embed_watermark(mended)


def encode_speech(system: SpeechSystem, audio: Audio) -> VoicePrompt:
    """Return semantic and acoustic codes of a whole recording, cut to the codes that both cover."""
    acoustic, codec = system.sound_parts()
    repeat = acoustic.config.frames_per_condition
    (semantic,) = system.semantic_tokenizer().encode([audio])
    with torch.no_grad():
        waveform = torch.from_numpy(audio.resampled(codec.sample_rate).samples)
        frames = codec.encode(waveform[None])[0, : acoustic.config.num_codebooks].cpu().numpy()
    T = min(len(semantic), frames.shape[1] // repeat)
    return VoicePrompt(np.asarray(semantic[:T], np.int64), frames[:, : T * repeat])


@dataclass(frozen=True)
class Turn:
    """Who says what, and when."""

    speaker: str
    text: str
    start_seconds: float = 0.0
    stop_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Dialogue:
    """One recording of several speakers."""

    audio: Audio
    turns: Sequence[Turn]
    in_one_pass: bool
    "False: every turn was made on its own."


def parse_dialogue(script: str) -> list[Turn]:
    """Return the turns of a script with one turn a line, `name: text`; empty lines are skipped.

    Raises:
        TaskError: a line names nobody or says nothing.
    """
    turns = []
    for number, line in enumerate(script.splitlines(), 1):
        if not line.strip():
            continue
        speaker, colon, text = line.partition(":")
        if not colon or not speaker.strip() or not text.strip():
            raise TaskError(f"line {number} of the dialogue is {line.strip()!r}, expected 'name: what is said'")
        turns.append(Turn(speaker.strip(), text.strip()))
    if not turns:
        raise TaskError("the dialogue has no turns; write one a line, 'name: what is said'")
    return turns


def speak_dialogue(
    system: SpeechSystem,
    script: str,
    voices: Mapping[str, AudioSource],
    *,
    language: str = "en",
    consent: bool,
    pause_seconds: float = 0.3,
    seed: int = 0,
    in_one_pass: bool | None = None,
) -> Dialogue:
    """Return a dialogue, each turn in the voice of its speaker, with a pause between turns.

    The LM writes the semantic codes of each turn by itself; the acoustic codes of all turns are made together where the
    checkpoint's SoundStorm has marks for so many speakers (`SoundStormConfig.num_speakers`), else turn by turn.

    Args:
        system: a checkpoint that can speak.
        script: turns as `parse_dialogue` reads them.
        voices: some seconds of each speaker's voice, by name.
        language: of the script.
        consent: the statement that all of them agreed.
        pause_seconds: silence between two turns.
        seed: of all draws.
        in_one_pass: True asks for one pass or an error, False for turn by turn; None: one pass where that is possible.

    Raises:
        ConsentError: without consent.
        ConfigError: one pass is asked for and impossible.
        TaskError: the script is broken, a speaker has no voice, or the LM had no speech for a turn.
    """
    require_consent(consent, "the speakers' voices")
    if pause_seconds < 0:
        raise ConfigError(f"pause_seconds = {pause_seconds}, expected 0 or more")
    turns = parse_dialogue(script)
    for turn in turns:
        if turn.speaker not in voices:
            raise TaskError(
                f"speaker {turn.speaker!r} has no voice{suggest(turn.speaker, voices)} (known: {', '.join(voices)})"
            )
    acoustic, codec = system.sound_parts()
    num_speakers = len({turn.speaker for turn in turns})
    if in_one_pass is None:
        in_one_pass = isinstance(acoustic, SoundStorm) and num_speakers <= acoustic.config.num_speakers
    codes = _said_codes(system, turns, language, seed)
    speak = _dialogue_at_once if in_one_pass else _dialogue_by_turns
    rate = codec.sample_rate
    pause, parts, placed, position = np.zeros(round(pause_seconds * rate), np.float32), [], [], 0
    for turn, audio in zip(turns, speak(system, turns, codes, voices, seed), strict=True):
        said = audio.samples
        placed.append(Turn(turn.speaker, turn.text, position / rate, (position + len(said)) / rate))
        parts += [said, pause]
        position += len(said) + len(pause)
    # One mark over the whole: turns are short, and a mark needs a second or so.
    return Dialogue(embed_watermark(Audio(np.concatenate(parts[:-1]), rate)), placed, in_one_pass)


def _said_codes(system: SpeechSystem, turns: Sequence[Turn], language: str, seed: int) -> list[np.ndarray]:
    """Return the semantic codes of each turn."""
    outputs = system.run(TaskTag.of("TTS", language), [turn.text for turn in turns], seed=seed, sound=False)
    codes = []
    for turn, output in zip(turns, outputs, strict=True):
        if output.codes is None or len(output.codes) == 0:
            raise TaskError(f"the model wrote no speech for {turn.text!r}; try another seed or a longer text")
        codes.append(np.asarray(output.codes, np.int64))
    return codes


def _dialogue_by_turns(
    system: SpeechSystem,
    turns: Sequence[Turn],
    codes: Sequence[np.ndarray],
    voices: Mapping[str, AudioSource],
    seed: int,
) -> list[Audio]:
    return system.synthesize(codes, voice=[voices[turn.speaker] for turn in turns], seed=seed)


def _dialogue_at_once(
    system: SpeechSystem,
    turns: Sequence[Turn],
    codes: Sequence[np.ndarray],
    voices: Mapping[str, AudioSource],
    seed: int,
) -> list[Audio]:
    from speechllm.generation.soundstorm_stage import dialogue_codes

    acoustic, codec = system.sound_parts()
    if not isinstance(acoustic, SoundStorm):
        raise ConfigError(f"a {acoustic.kind} checkpoint cannot make a dialogue in one pass; leave in_one_pass out")
    require_match(acoustic, codec)
    names = list(dict.fromkeys(turn.speaker for turn in turns))
    prompts = system.voice_prompts([voices[name] for name in names], len(names))
    said = [(names.index(turn.speaker), one) for turn, one in zip(turns, codes, strict=True)]
    (made,) = dialogue_codes(acoustic, [said], [prompts], AcousticDecoding(), seed=seed)
    # Turns are decoded one by one: the pauses between them are silence, into which no codec should run on.
    return decode_codes(made, codec)
