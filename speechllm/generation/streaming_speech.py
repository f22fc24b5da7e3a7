"""Speech while it is still being made: the first sound after a second or so, memory as for a few seconds.

    for audio in stream_speech(pieces, acoustic, codec, voice=voice, seed=0):      # pieces: arrays of semantic codes
        player.write(audio.samples)

    semantic    s s s s s s|s s s s s s s s s s          the codes so far, as they come
    acoustic    [piece 1   . .]                          . : seen as what comes next, made again in the next piece
                     c c c [piece 2            . .]      c: the last seconds said, as the prompt of the next piece
    waveform    ~~~~~~~~~~~~~~~~                         held back: the frames whose sound the next ones change

What a listener waits for is `StreamConfig.first_seconds + lookahead_seconds` of semantic codes, then one acoustic
pass and one pass of the codec over them; `latency_seconds` says how much speech that is. Nothing that was said is kept
but `context_seconds`. The sound is the same whatever the sizes of the pieces that come in. It is not that of
`synthesize`, which sees a whole utterance at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from speechllm.audio import Audio
from speechllm.errors import ConfigError
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.generation.cascade import require_match
from speechllm.generation.voice import VoicePrompt
from speechllm.models.acoustic import AcousticModel
from speechllm.tokenizers.codec import Codec
from speechllm.tokenizers.streaming import StreamingCodec, StreamingDecoder

SEED_STEP = 7_919


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How much speech is made at a time. Seconds of speech, not of computing."""

    first_seconds: float = 0.8
    "In the first piece: longer sounds better, shorter starts sooner."
    seconds: float = 4.0
    "In each later piece."
    lookahead_seconds: float = 0.24
    "Seen beyond a piece before it is made."
    context_seconds: float = 3.0
    "What was said last, kept as the prompt of the next piece."
    codec_context_seconds: float = 0.5
    "Codec frames decoded again before each piece, for codecs that cannot stream by themselves."
    codec_held_seconds: float = 0.08
    "Sound held back at the end of a piece, for the same codecs: the next frames still change it."
    fade_seconds: float = 0.01
    "Over so much the new decoding of held-back sound takes over from the old one."
    decoding: AcousticDecoding = field(default_factory=AcousticDecoding)
    "How acoustic codes are drawn."

    def __post_init__(self) -> None:
        for name in ("first_seconds", "seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected more than 0")
        if self.codec_held_seconds + self.fade_seconds > self.codec_context_seconds:
            raise ConfigError("codec_context_seconds must cover what is held back and the fade; lengthen it")

    @property
    def latency_seconds(self) -> float:
        """Seconds of speech whose semantic codes must be there before the first sound."""
        return self.first_seconds + self.lookahead_seconds


def stream_speech(
    pieces: Iterable[np.ndarray],
    acoustic: AcousticModel,
    codec: Codec,
    *,
    voice: VoicePrompt | None,
    seed: int,
    config: StreamConfig | None = None,
) -> Iterator[Audio]:
    """Yield the speech of semantic codes that arrive in pieces; together T * samples per code samples.

    Args:
        pieces: int [n] each, in order, not deduplicated; an empty piece is fine.
        acoustic: the acoustic model, trained with this codec.
        codec: turns acoustic codes into sound; streams by itself (Mimi, SoundStream) or decodes with overlaps.
        voice: a prompt, or None: the first piece draws a voice, the others go on in it.
        seed: of all draws.
        config: sizes.

    Raises:
        CheckpointError: the acoustic model was trained with another codec.
        VocabularyError: a code is outside the semantic codebook.
        ConfigError: the model does not say which frames a code lasts (AudioLM that removes repeats).
    """
    require_match(acoustic, codec)
    config = config or StreamConfig()
    speaker = _Speaker(acoustic, codec, voice, seed, config)
    sound = _sound_of(codec, config)
    for codes in _piece_by_piece(pieces, speaker.first_codes, speaker.next_codes, speaker.lookahead):
        samples = sound.push(speaker.say(*codes))
        if len(samples):
            yield Audio(samples, codec.sample_rate)
    samples = sound.flush()
    if len(samples):
        yield Audio(samples, codec.sample_rate)


def _piece_by_piece(
    arriving: Iterable[np.ndarray], first: int, later: int, lookahead: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (codes to say, codes seen beyond them), whatever the sizes in which they arrive."""
    waiting, size = np.zeros(0, np.int64), first
    for arrived in arriving:
        waiting = np.concatenate((waiting, np.asarray(arrived, dtype=np.int64)))
        while len(waiting) >= size + lookahead:
            yield waiting[:size], waiting[size : size + lookahead]
            waiting, size = waiting[size:], later
    # Once the end is known there is no more to wait for.
    while len(waiting):
        yield waiting[:size], waiting[size : size + lookahead]
        waiting, size = waiting[size:], later


class _Speaker:
    """Makes acoustic codes piece by piece, and remembers the last of them."""

    def __init__(
        self, acoustic: AcousticModel, codec: Codec, voice: VoicePrompt | None, seed: int, config: StreamConfig
    ):
        self.acoustic, self.voice, self.seed, self.decoding = acoustic, voice, seed, config.decoding
        self.repeat, self.num_codebooks = acoustic.config.frames_per_condition, acoustic.config.num_codebooks
        rate = codec.frame_rate / self.repeat
        self.first_codes, self.next_codes = (max(1, round(s * rate)) for s in (config.first_seconds, config.seconds))
        self.lookahead, self.context = (round(s * rate) for s in (config.lookahead_seconds, config.context_seconds))
        self.said = VoicePrompt(np.zeros(0, np.int64), np.zeros((self.num_codebooks, 0), np.int64))
        self.turn = 0

    def say(self, codes: np.ndarray, ahead: np.ndarray) -> Int[np.ndarray, "K T"]:
        """Return the acoustic codes of `codes`, made with `ahead` in view."""
        asked = np.concatenate((codes, ahead))
        seed = self.seed + SEED_STEP * self.turn
        (made,) = acoustic_codes(self.acoustic, [asked], [self._prompt()], self.decoding, seed=seed)
        if made.shape[1] != len(asked) * self.repeat:
            raise ConfigError(
                f"{len(asked)} semantic codes became {made.shape[1]} frames, expected {self.repeat} each; "
                "an AudioLM whose coarse stage removes repeats cannot stream, train one with dedup: false"
            )
        new = made[:, : len(codes) * self.repeat]
        self.said = _joined(self.said, VoicePrompt(codes, new)).last(self.context, self.repeat)
        self.turn += 1
        return new

    def _prompt(self) -> VoicePrompt | None:
        """Return the voice and, behind it, what was said last."""
        if self.voice is None:
            return self.said if len(self.said.semantic_codes) else None
        voice = VoicePrompt(self.voice.semantic_codes, self.voice.acoustic_codes[: self.num_codebooks])
        return _joined(voice, self.said)


def _joined(a: VoicePrompt, b: VoicePrompt) -> VoicePrompt:
    return VoicePrompt(
        np.concatenate((a.semantic_codes, b.semantic_codes)),
        np.concatenate((a.acoustic_codes, b.acoustic_codes), axis=1),
    )


class _CodecStream:
    """The codec's own stream, for one row."""

    def __init__(self, stream: StreamingDecoder):
        self.stream = stream

    def push(self, codes: Int[np.ndarray, "K T"]) -> Float[np.ndarray, " S"]:
        """Return the samples that these codes add."""
        return self.stream.push(torch.from_numpy(codes)[None])[0].cpu().numpy()

    def flush(self) -> Float[np.ndarray, " S"]:
        """Return nothing: nothing is held back."""
        return np.zeros(0, np.float32)


class OverlappingDecoder:
    """Decodes some frames twice, so that pieces of a codec that sees both ways fit together.

    Exact for a codec that sees no further than the context to the left, and to the right the held-back frames less the
    fade.
    Griffin-Lim sees everything and starts from noise: there the fade hides the seam.
    """

    def __init__(self, codec: Codec, config: StreamConfig):
        self.codec = codec
        self.samples_per_frame = round(codec.sample_rate / codec.frame_rate)
        self.context, self.held = (
            max(1, round(s * codec.frame_rate)) for s in (config.codec_context_seconds, config.codec_held_seconds)
        )
        self.context = max(self.context, self.held + 1)
        self.fade = round(config.fade_seconds * codec.sample_rate)
        self._codes = np.zeros((codec.num_codebooks, 0), np.int64)
        self._settled = 0
        self._old = np.zeros(0, np.float32)

    def push(self, codes: Int[np.ndarray, "K T"]) -> Float[np.ndarray, " S"]:
        """Return the samples that the next frames will not change."""
        self._codes = np.concatenate((self._codes[: len(codes)], codes), axis=1)
        settled = (self._codes.shape[1] - self.held) * self.samples_per_frame
        return self._until(max(settled, self._settled))

    def flush(self) -> Float[np.ndarray, " S"]:
        """Return the samples held back: the end."""
        return self._until(self._codes.shape[1] * self.samples_per_frame)

    def _until(self, stop: int) -> Float[np.ndarray, " S"]:
        """Return the samples from what is settled to `stop`, counted from the first frame kept; forget old frames."""
        if stop <= self._settled:
            return np.zeros(0, np.float32)
        with torch.no_grad():
            samples = self.codec.decode(torch.from_numpy(self._codes)[None])[0].cpu().numpy()
        new = samples[self._settled : stop].copy()
        fade = min(len(self._old), len(new))
        weights = (np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1)
        new[:fade] = weights * new[:fade] + (1 - weights) * self._old[:fade]
        self._old = samples[stop : stop + self.fade].copy()
        dropped = max(0, self._codes.shape[1] - self.context)
        self._codes = self._codes[:, dropped:]
        self._settled = stop - dropped * self.samples_per_frame
        return new


def _sound_of(codec: Codec, config: StreamConfig) -> _CodecStream | OverlappingDecoder:
    """Return the codec's own stream, or a decoder with overlaps for a codec that has none."""
    if isinstance(codec, StreamingCodec) and codec.streams:
        return _CodecStream(codec.streaming_decoder())
    return OverlappingDecoder(codec, config)
