"""Speech made in pieces while its codes arrive, against the same codes at once.

    measure_streaming(seed=0, budget=budget, folders=folders)      # results/streaming-0.json

    series "<split>/<system>/<what>"
    system   streamed, offline
    what     cer, own voice; at the places where pieces meet: jump, click
             first sound, whole: (CPU seconds, 1) of each item; speech: (seconds of speech, 1)

Items are sentences of one speaker, end to end, behind a prompt.
"""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.seams import clicks, jumps
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, by_speaker, end_to_end, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.generation.streaming_speech import StreamConfig, stream_speech
from speechllm.generation.voice import VoicePrompt

STREAMED, OFFLINE = "streamed", "offline"


def measure_streaming(seed: int, budget: Budget, folders: Folders) -> None:
    """Speak the same codes both ways."""
    use_one_thread()
    world, config = World.load(seed, budget, folders), StreamConfig()
    series: dict[str, Series] = {}
    for split in SPLITS:
        texts, codes, voices = _items(world, split)
        prompts = [world.prompt(world.soundstorm, voice) for voice in voices]
        streams = [_streamed(world, *pair) for pair in zip(codes, prompts, strict=True)]
        offline = [_timed(world, *pair) for pair in zip(codes, prompts, strict=True)]
        places = [_places(config, audio) for audio, _, _ in streams]
        spoken = {STREAMED: [audio for audio, _, _ in streams], OFFLINE: [audio for audio, _ in offline]}
        for system, audios in spoken.items():
            key, pairs = f"{split}/{system}", list(zip(audios, places, strict=True))
            series[f"{key}/cer"] = world.ears.errors_of(texts, world.ears.judge.transcribe(audios, LANGUAGE))
            series[f"{key}/own voice"] = world.ears.similarities(audios, voices)
            series[f"{key}/jump"] = [row for audio, seconds in pairs for row in jumps(audio, seconds)]
            series[f"{key}/click"] = [row for audio, seconds in pairs for row in clicks(audio, seconds)]
            series[f"{key}/speech"] = [(audio.duration_seconds, 1.0) for audio in audios]
        series[f"{split}/{STREAMED}/first sound"] = [(first, 1.0) for _, first, _ in streams]
        series[f"{split}/{STREAMED}/whole"] = [(whole, 1.0) for _, _, whole in streams]
        series[f"{split}/{OFFLINE}/first sound"] = [(took, 1.0) for _, took in offline]
        series[f"{split}/{OFFLINE}/whole"] = series[f"{split}/{OFFLINE}/first sound"]
    save_series(folders.result("streaming", seed), series, latency_seconds=config.latency_seconds)


def _items(world: World, split: str) -> tuple[list[str], list[np.ndarray], list[Audio]]:
    """Return texts, codes and voices: the first sentences of each speaker, and the voice from the others."""
    texts, codes, voices = [], [], []
    for sentences in list(by_speaker(world.folders.corpus, split).values())[: world.budget.num_streamed]:
        said, seconds = [], 0.0
        while len(said) < len(sentences) and seconds < world.budget.stream_seconds:
            said.append(sentences[len(said)])
            seconds += said[-1][1].duration_seconds
        others = sentences[len(said) :] or sentences
        texts.append(" ".join(text for text, _ in said))
        codes.append(np.concatenate(world.tokenizer.encode([audio for _, audio in said])))
        voices.append(end_to_end([audio for _, audio in others], PROMPT_SECONDS))
    return texts, codes, voices


def _streamed(world: World, codes: np.ndarray, voice: VoicePrompt) -> tuple[Audio, float, float]:
    """Return the sound, CPU seconds to its first piece, and to its last."""
    started, pieces, took = time.process_time(), [], []
    for piece in stream_speech([codes], world.soundstorm, world.codec, voice=voice, seed=world.seed):
        pieces.append(piece.samples)
        took.append(time.process_time() - started)
    return Audio(np.concatenate(pieces), world.codec.sample_rate), took[0], took[-1]


def _timed(world: World, codes: np.ndarray, voice: VoicePrompt) -> tuple[Audio, float]:
    started = time.process_time()
    (audio,) = world.speak(world.soundstorm, [codes], [voice])
    return audio, time.process_time() - started


def _places(config: StreamConfig, audio: Audio) -> Sequence[float]:
    """Return where acoustic pieces meet, and where pieces of sound do: earlier, as some is held back."""
    ends = np.arange(config.first_seconds, audio.duration_seconds - 0.1, config.seconds)
    return sorted([*ends.tolist(), *(ends - config.codec_held_seconds).tolist()])
