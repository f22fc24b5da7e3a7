"""Real-time factors of everything between a waveform and the LM, and back: compute seconds per second of audio.

    python -m benchmarks.tokenizers
    SPEECHLLM_WHISPER_BASE=whisper-base python -m benchmarks.tokenizers     # with Whisper's encoder as well

Each part runs in a process of its own, one utterance at a time, so that its peak memory is its own. Weights are random
where only the sizes matter; the sizes are read from the quickstart's config. The speech is Pico's.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer

from benchmarks.machine import RESULTS, measure_machine, threads
from benchmarks.measure import Spread, clock_for, interleave, peak_memory_mib, table, write_text
from speechllm.audio import Audio, load_audio

WHISPER_VARIABLE = "SPEECHLLM_WHISPER_BASE"
Run: TypeAlias = Callable[[Audio], object]


@dataclass(frozen=True)
class Measured:
    """What one part needed for all utterances."""

    name: str
    real_time_factor: Spread
    peak_memory_mib: float
    memory_before_mib: float
    "Of the process with its imports and the speech, before the part was built."


def speech(num_utterances: int) -> list[Audio]:
    """Return utterances of Pico at 16 kHz."""
    from data_prep.pico import records

    found = []
    for record in records(num_sentences=num_utterances, num_validation=1, num_test=1, num_workers=1):
        assert record.audio is not None, "Pico records have audio"
        found.append(load_audio(record.audio, 16_000))
    return found[:num_utterances]


def log_mel_tokenizer(audios: Sequence[Audio]) -> Run:
    """Codes from stacked log-mel frames: not the quickstart's way, but the cheapest that there is."""
    from speechllm.tokenizers.features import LogMelFeatures, LogMelFeaturesConfig

    return _encode(_semantic(LogMelFeatures(LogMelFeaturesConfig(frame_rate=_quickstart().encoder.frame_rate))))


def ctc_tokenizer(audios: Sequence[Audio]) -> Run:
    """Codes from the CTC encoder."""
    return _encode(ctc_codes())


def whisper_tokenizer(audios: Sequence[Audio]) -> Run:
    """Codes from Whisper-base's encoder."""
    from speechllm.tokenizers.pretrained_features import TransformersFeatures, TransformersFeaturesConfig

    frame_rate = _quickstart().encoder.frame_rate
    config = TransformersFeaturesConfig(source=os.environ[WHISPER_VARIABLE], frame_rate=frame_rate)
    return _encode(_semantic(TransformersFeatures.from_source(config)))


def _quickstart() -> Any:
    """Return the recipe's config: the source of all sizes here."""
    from recipes.quickstart.config import CONFIG, QuickstartConfig
    from speechllm.config import load_config

    return load_config(QuickstartConfig, CONFIG)


def ctc_codes() -> Any:
    """Return a tokenizer on the CTC encoder of the quickstart's size, with random weights."""
    from speechllm.tokenizers.ctc_encoder import CTCEncoder, CTCEncoderConfig, CTCFeatures

    recipe = _quickstart()
    sizes = recipe.encoder
    config = CTCEncoderConfig(
        symbols=" abcdefghijklmnopqrstuvwxyz", frame_rate=sizes.frame_rate, num_mels=sizes.num_mels,
        emissions_per_frame=sizes.emissions_per_frame, stem_width=sizes.stem_width, trunk=sizes.trunk,
    )  # fmt: skip
    return _semantic(CTCFeatures(CTCEncoder(config), recipe.features))


def _semantic(features: Any) -> Any:
    """Return a tokenizer with random centroids: the search costs what it costs with fitted ones."""
    from speechllm.tokenizers.semantic import SemanticTokenizer

    config = _quickstart().semantic
    width = features(Audio(torch.zeros(16_000).numpy(), 16_000)).shape[1]
    centroids = torch.randn(config.codebook_size, width, generator=torch.Generator().manual_seed(0))
    return SemanticTokenizer(features, centroids, config)


def _encode(tokenizer: Any) -> Run:
    return lambda audio: tokenizer.encode([audio])


def codec_encoder(audios: Sequence[Audio]) -> Run:
    """Acoustic codes from a waveform."""
    codec = _codec()
    return lambda audio: codec.encode(torch.from_numpy(audio.samples)[None])


def codec_decoder(audios: Sequence[Audio]) -> Run:
    """A waveform from acoustic codes."""
    codec = _codec()
    codes = {id(audio): codec.encode(torch.from_numpy(audio.samples)[None]) for audio in audios}
    return lambda audio: codec.decode(codes[id(audio)])


def _codec() -> Any:
    """Return the quickstart's codec with random codebooks."""
    from speechllm.tokenizers.mel_rvq import MelRVQCodec

    config = _quickstart().codec
    shape = (config.num_codebooks, config.codebook_size, config.frames_per_patch * config.mel.num_mels)
    return MelRVQCodec(config, torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def soundstorm(audios: Sequence[Audio]) -> Run:
    """Acoustic codes from semantic codes behind a prompt, in as many passes as the recipe's model takes."""
    from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
    from speechllm.generation.voice import VoicePrompt, prompt_length
    from speechllm.training.soundstorm import build_soundstorm

    codec, tokenizer = _codec(), ctc_codes()
    model = build_soundstorm(tokenizer, codec, _quickstart().acoustic).eval()
    repeat = model.config.frames_per_condition
    draw = np.random.default_rng(0).integers
    length = prompt_length(codec.frame_rate, repeat)
    semantic, acoustic = draw(tokenizer.codebook_size, size=length), (model.config.num_codebooks, length * repeat)
    voice = VoicePrompt(semantic, draw(codec.codebook_size, size=acoustic))

    def run(audio: Audio) -> object:
        codes = draw(tokenizer.codebook_size, size=max(1, int(audio.duration_seconds * tokenizer.frame_rate)))
        return acoustic_codes(model, [codes], [voice], AcousticDecoding(), seed=0)

    return run


def unified_lm(audios: Sequence[Audio]) -> Run:
    """Semantic codes written by the LM, one sequence at a time."""
    from benchmarks.decoding import build, make_span, quickstart_size, run_ours
    from speechllm.generation.decode import LMDecoder

    model, processor = build(quickstart_size())
    frame_rate = _quickstart().encoder.frame_rate
    decoder = LMDecoder(model, processor, frame_rate=frame_rate)
    return lambda audio: run_ours(
        decoder, make_span(processor, "audio", max(1, int(audio.duration_seconds * frame_rate)), batch_size=1)
    )


PARTS: dict[str, Callable[[Sequence[Audio]], Run]] = {
    "semantic: log-mel": log_mel_tokenizer,
    "semantic: CTC encoder": ctc_tokenizer,
    "semantic: Whisper-base": whisper_tokenizer,
    "codec: encode": codec_encoder,
    "codec: decode": codec_decoder,
    "SoundStorm with a prompt of 3 s": soundstorm,
    "LM writes codes": unified_lm,
}


def measure(name: str, num_utterances: int, num_threads: int, rounds: int) -> Measured:
    """Build one part and time it over all utterances; meant for a process of its own."""
    audios = speech(num_utterances)
    before = peak_memory_mib()
    seconds_of_audio = sum(audio.duration_seconds for audio in audios)
    with threads(num_threads), torch.no_grad():
        run = PARTS[name](audios)
        seconds = interleave(
            {name: lambda: [run(audio) for audio in audios]}, rounds=rounds, clock=clock_for(num_threads)
        )[name]
    factors = [value / seconds_of_audio for value in seconds]
    # the kernel's count is exact to some pages only, so that a peak may seem to fall
    return Measured(name, Spread.of(factors), max(before, peak_memory_mib()), before)


def measure_apart(names: Sequence[str], num_utterances: int, num_threads: int, rounds: int) -> list[Measured]:
    """Return `measure` of each part, each from a fresh process."""
    found = []
    context = multiprocessing.get_context("spawn")
    for name in names:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(measure, name, num_utterances, num_threads, rounds).result())
    return found


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "tokenizers.md",
    rounds: Annotated[int, typer.Option(help="How often each part goes through all utterances.")] = 3,
    num_utterances: Annotated[int, typer.Option(help="Utterances.")] = 10,
    num_threads: Annotated[list[int] | None, typer.Option(help="Threads of torch, a table each: 1 and 2.")] = None,
    quick: Annotated[bool, typer.Option(help="Two utterances, two rounds, one thread.")] = False,
) -> None:
    """Time the tokenizers, the codec, SoundStorm and the LM, with one thread and with two."""
    counts = [1] if quick else num_threads or [1, 2]
    names = [name for name in PARTS if "Whisper" not in name or WHISPER_VARIABLE in os.environ]
    num_utterances, rounds = (2, 2) if quick else (num_utterances, rounds)
    sections = []
    for count in counts:
        machine = measure_machine(num_threads=count, quick=quick)
        rows = [
            [one.name, one.real_time_factor.show(4), f"{one.peak_memory_mib - one.memory_before_mib:,.0f}"]
            for one in measure_apart(names, num_utterances, count, rounds)
        ]
        result = table(["part", "real-time factor", "memory added at the peak, MiB"], rows)
        sections.append(f"## Threads: {count}\n\n{machine.describe()}\n\n{result}")
    missing = (
        "" if WHISPER_VARIABLE in os.environ else f" Whisper-base was not measured: {WHISPER_VARIABLE} is not set."
    )
    chosen = "".join(f" --num-threads {count}" for count in num_threads or []) + (" --quick" if quick else "")
    text = f"""# Tokenizers, codec, SoundStorm: real-time factors

`python -m benchmarks.tokenizers --rounds {rounds} --num-utterances {num_utterances}{chosen}`

Compute seconds per second of audio over {num_utterances} utterances of Pico, one at a time; median (min to max) over
rounds. Below 1 is faster than speech.{missing}

"""
    typer.echo(write_text(out, text + "\n\n".join(sections)))


if __name__ == "__main__":
    typer.run(main)
