"""What `transformers.pipeline` costs on top of the model, what batches gain, and long audio with its seams.

    python -m benchmarks.pipeline runs/quickstart/checkpoint runs/quickstart/corpus

The bare call is what a program would write with the parts in hand: encode the sound, build the prompts, decode; for
speech the acoustic model, the codec and the watermark as well. Outputs of both are compared before anything is timed.
Long audio is test sentences with pauses and a little noise between them: its word error rate, against that of the same
sentences one by one, says what the seams cost. Silence around a sentence, as a microphone has it, should cost nothing.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import transformers
import typer

import speechllm  # noqa: F401 - teaches transformers.pipeline
from benchmarks.machine import RESULTS, measure_machine, threads
from benchmarks.measure import Clock, Spread, clock_for, interleave, ratio, table, write_text
from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.data.records import Record
from speechllm.generation.cascade import synthesize
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.metrics import WER, make_normaliser
from speechllm.pipelines.system import MAX_PIECE_SECONDS, SpeechSystem
from speechllm.safety import embed_watermark
from speechllm.segments import CodeSegment, TextSegment
from speechllm.tasks import TaskTag

PAUSES_SECONDS = (0.25, 0.7)
"Between two sentences of long audio: shortest and longest."
NOISE = 10 ** (-70 / 20)
"Of long audio, beside sound of up to 1: there is no digital silence to look for."
SILENCES = ((0.0, -70), (0.05, -70), (0.1, -70), (0.2, -70), (0.5, -70), (1.0, -70), (0.5, -45))
"Around a sentence: seconds on either side, and the level of the noise in and under it, in dB below full scale."
BATCH_SIZES = (1, 4, 16)
RATE = 16_000
Lengths: TypeAlias = Sequence[tuple[float, int]]
"Seconds, and how many recordings of that length."
LENGTHS: Lengths = ((20.0, 8), (60.0, 4), (300.0, 1))


make_pipeline: Any = transformers.pipeline
"Typed for the tasks that transformers has itself."


@dataclass(frozen=True)
class Job:
    """One task: the pipeline and the bare call on the same inputs, and what each gives."""

    name: str
    inputs: list[Any]
    pipe: Callable[[list[Any], int], list[Any]]
    bare: Callable[[list[Any]], list[Any]]


def jobs(checkpoint: str, system: SpeechSystem, records: list[Record]) -> list[Job]:
    """Return recognition and translation of the sentences, and speech of the texts."""
    audios, texts = [heard(record) for record in records], [record.text for record in records]
    recognise = make_pipeline("automatic-speech-recognition", model=checkpoint, device="cpu")
    translate = make_pipeline("translation", model=checkpoint, device="cpu", src_lang="en", tgt_lang="fr")
    speak = make_pipeline("text-to-speech", model=checkpoint, device="cpu")
    return [
        Job(
            "speech recognition", audios,
            lambda given, size: [one["text"] for one in recognise(given, batch_size=size)],
            lambda given: bare_text(system, TaskTag.of("ASR", "en"), given),
        ),
        Job(
            "text translation", texts,
            lambda given, size: [one["translation_text"] for one in translate(given, batch_size=size)],
            lambda given: bare_text(system, TaskTag.of("MT", "en", "fr"), given),
        ),
        Job(
            "text to speech", texts,
            lambda given, size: [one["audio"] for one in speak(given, batch_size=size)],
            lambda given: bare_speech(system, given),
        ),
    ]  # fmt: skip


def heard(record: Record) -> Audio:
    """Return the sound of a sentence at 16 kHz."""
    assert record.audio is not None, f"{record.id} has no audio"
    return load_audio(record.audio, RATE)


def bare_text(system: SpeechSystem, tag: TaskTag, given: list[Any]) -> list[str]:
    """Return texts by the decoder alone."""
    decoded = system.decoder.decode(system.processor(tag, given), [tag.output_modalities] * len(given))
    return [one.segments[-1].text for one in decoded if isinstance(one.segments[-1], TextSegment)]


def bare_speech(system: SpeechSystem, given: list[str]) -> list[np.ndarray]:
    """Return speech by the decoder, the acoustic model and the codec, marked."""
    tag = TaskTag.of("TTS", "en")
    decoded = system.decoder.decode(system.processor(tag, given), [tag.output_modalities] * len(given))
    codes = [one.segments[0].codes for one in decoded if isinstance(one.segments[0], CodeSegment)]
    acoustic, codec = system.sound_parts()
    return [embed_watermark(audio).samples for audio in synthesize(codes, acoustic, codec, voice=None, seed=0)]


def overhead(job: Job, size: int, rounds: int, clock: Clock) -> list[str]:
    """Return a row: seconds of both, and their ratio; refuse contestants that differ."""
    given = job.inputs[:size]
    for ours, theirs in zip(job.pipe(given, size), job.bare(given), strict=True):
        assert np.array_equal(ours, theirs), f"{job.name}: the pipeline and the bare call differ"
    seconds = interleave(
        {"pipe": lambda: job.pipe(given, size), "bare": lambda: job.bare(given)}, rounds=rounds, clock=clock
    )
    pipe, bare = (Spread.of([1_000 * s for s in seconds[name]]).show() for name in ("pipe", "bare"))
    return [job.name, str(size), pipe, bare, ratio(seconds["pipe"], seconds["bare"]).show(2)]


def batches(job: Job, rounds: int, clock: Clock) -> list[list[str]]:
    """Return a row for each size of batch, on the same inputs."""
    seconds = interleave(
        {str(size): lambda size=size: job.pipe(job.inputs, size) for size in BATCH_SIZES}, rounds=rounds, clock=clock
    )
    return [
        [
            job.name, str(size),
            Spread.of([len(job.inputs) / s for s in seconds[str(size)]]).show(1),
            ratio(seconds["1"], seconds[str(size)]).show(2),
        ]
        for size in BATCH_SIZES
    ]  # fmt: skip


def long_recordings(records: list[Record], seconds: float, count: int) -> list[list[Record]]:
    """Return `count` lists of sentences, each of at most so many seconds with its pauses; sentences come in order."""
    order, longest_pause = itertools.cycle(records), PAUSES_SECONDS[1]
    found, record = [], next(order)
    for _ in range(count):
        chosen, length = [record], heard(record).duration_seconds
        while (length := length + longest_pause + heard(record := next(order)).duration_seconds) <= seconds:
            chosen.append(record)
        found.append(chosen)
    return found


def joined(records: list[Record], seed: int) -> Audio:
    """Return the sentences one after the other, with pauses and noise."""
    rng = np.random.default_rng(seed)
    parts = [heard(records[0]).samples]
    for record in records[1:]:
        pause = np.zeros(round(rng.uniform(*PAUSES_SECONDS) * RATE), np.float32)
        parts += [pause, heard(record).samples]
    samples = np.concatenate(parts)
    return Audio((samples + NOISE * rng.standard_normal(len(samples))).astype(np.float32), RATE)


def long_audio(checkpoint: str, records: list[Record], lengths: Lengths, clock: Clock) -> list[list[str]]:
    """Return rows for each length of recording: one by one, pieces of 20 s, pieces by the checkpoint."""
    recognise = make_pipeline("automatic-speech-recognition", model=checkpoint, device="cpu")
    recognise.system.decoding = DecodingConfig()
    longest = recognise.system.longest_piece_seconds
    rows = []
    for seconds, count in lengths:
        chosen = long_recordings(records, seconds, count)
        alone = [joined([record], seed) for seed, record in enumerate(itertools.chain(*chosen))]
        audios = [joined(some, seed) for seed, some in enumerate(chosen)]
        ways: dict[str, tuple[list[Audio], dict[str, float]]] = {
            "sentence by sentence": (alone, {}),
            f"{MAX_PIECE_SECONDS:g} s at most": (audios, {"chunk_length_s": MAX_PIECE_SECONDS}),
            f"by the checkpoint, {longest:.1f} s at most": (audios, {}),
        }
        reference = " ".join(record.text for record in itertools.chain(*chosen))
        for name, (given, options) in ways.items():
            start = clock()
            text = " ".join(one["text"] for one in recognise(given, batch_size=BATCH_SIZES[-1], **options))
            factor = (clock() - start) / sum(audio.duration_seconds for audio in given)
            score = WER.score([reference], [text], normaliser=make_normaliser("spoken", "en"))
            assert score.value is not None
            lacking = len(reference.split()) - len(text.split())
            rows.append([f"{count} x {seconds:g} s", name, f"{factor:.3f}", f"{score.value:.1f}", f"{lacking:+d}"])
    return rows


def silence_around(checkpoint: str, records: list[Record]) -> list[list[str]]:
    """Return the word error rate of sentences with silence before and behind them."""
    recognise = make_pipeline("automatic-speech-recognition", model=checkpoint, device="cpu")
    recognise.system.decoding = DecodingConfig()
    rows = []
    for seconds, level in SILENCES:
        rng, silence = np.random.default_rng(0), np.zeros(round(seconds * RATE), np.float32)
        given = []
        for record in records:
            samples = np.concatenate([silence, heard(record).samples, silence])
            noise = 10 ** (level / 20) * rng.standard_normal(len(samples))
            given.append(Audio((samples + noise).astype(np.float32), RATE))
        texts = [one["text"] for one in recognise(given, batch_size=BATCH_SIZES[-1])]
        score = WER.score([record.text for record in records], texts, normaliser=make_normaliser("spoken", "en"))
        rows.append([f"{seconds:g} s", f"{level} dB", f"{score.value:.1f}"])
    return rows


def main(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint that can speak.")],
    corpus: Annotated[Path, typer.Argument(help="Corpus with English test sentences.")],
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "pipeline.md",
    rounds: Annotated[int, typer.Option(help="How often the candidates take turns.")] = 3,
    num_inputs: Annotated[int, typer.Option(help="Sentences in a batch, at most.")] = 16,
    quick: Annotated[bool, typer.Option(help="Few inputs, to see that it runs.")] = False,
) -> None:
    """Time the pipelines on one thread and write the tables."""
    machine, clock = measure_machine(num_threads=1, quick=quick), clock_for(1)
    records = [record for record in read_corpus(corpus, "test") if record.language == "en"]
    few = records[: 4 if quick else num_inputs]
    rounds, sizes = (2, (1, 2)) if quick else (rounds, (1, 8))
    with threads(1):
        tasks = jobs(checkpoint, SpeechSystem.from_pretrained(checkpoint), few)
        costs = [overhead(job, size, rounds, clock) for job in tasks for size in sizes]
        gains = [row for job in tasks for row in batches(job, rounds, clock)]
        edges = silence_around(checkpoint, records[: 4 if quick else 100])
        seams = long_audio(checkpoint, records, ((6.0, 2),) if quick else LENGTHS, clock)
    shortest, longest = PAUSES_SECONDS
    options = f"--rounds {rounds} --num-inputs {num_inputs}"
    command = f"python -m benchmarks.pipeline CHECKPOINT CORPUS {'--quick' if quick else options}"
    text = f"""# Pipelines

`{command}`

{machine.describe()}

Median (min to max) over rounds, candidates taking turns; greedy decoding, float32. Inputs are arrays and texts in
memory.

## On top of the model

The bare call has the parts in hand: tokenizer, processor, decoder, and for speech acoustic model, codec and watermark.
Its outputs are equal to those of the pipeline. At most 1.10 is wanted.

{table(["task", "inputs", "pipeline, ms", "bare call, ms", "pipeline / bare"], costs)}

## Batches

The same {len(few)} inputs by different `batch_size`.

{table(["task", "batch_size", "inputs/s", "speed-up"], gains)}

## Long audio

Test sentences joined to recordings of at most so many seconds, with pauses of {shortest} to {longest} s and noise at
-70 dB. What is longer than a piece may be is cut in its pauses. `20 s at most` is `chunk_length_s=20`, as for a
checkpoint that does not say how long the speech of its training was. Missing words: those of the reference less those
written.

{table(["recordings", "pieces", "real-time factor", "WER, %", "missing words"], seams)}

## Silence around a sentence

{4 if quick else 100} test sentences. Silence of which a pause can be made out is left out before the model hears it;
what is shorter, or noisy, stays.

{table(["before and behind", "noise", "WER, %"], edges)}
"""
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
