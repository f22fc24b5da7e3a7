"""The text of acoustic.md: tables out of the measurements, what was run, and what it does not show."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import mean

from benchmarks.evidence.acoustic.language_report import language_costs, language_limits, language_section
from benchmarks.evidence.acoustic.language_summary import LANGUAGE_PUBLISHED
from benchmarks.evidence.acoustic.long_speech import SEGMENT_SECONDS
from benchmarks.evidence.acoustic.minimal_pairs import SLOWER
from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, Budget, Folders
from benchmarks.evidence.acoustic.quality import quality_section
from benchmarks.evidence.acoustic.summary import (
    MEASUREMENTS,
    MODELS,
    PUBLISHED,
    SECONDS,
    WHERE,
    Finding,
    Results,
    iterations_table,
    numbers,
    overview,
    show,
    systems_table,
    value,
)
from benchmarks.evidence.acoustic.voices import PLAIN
from benchmarks.evidence.acoustic.world import Series
from benchmarks.machine import processor_name
from benchmarks.measure import ratio, table
from speechllm.metrics.text import CER
from speechllm.training.loop import HISTORY_FILE
from speechllm.training.soundstorm import SoundStormStageConfig


def report(findings: list[Finding], results: Results, budget: Budget, folders: Folders, command: str) -> str:
    """Return the text of the report."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "jiwer", "moonshine-voice"))
    return f"""# Findings of AudioLM and SoundStorm in miniature

`{command}`

{processor_name()}, one thread; {packages}.

![every seed a dot or a thin line, the mean a bar or a thick one](acoustic.png)

{overview(findings, {**PUBLISHED, **LANGUAGE_PUBLISHED})}

Published: AudioLM, arXiv:2209.03143, and SoundStorm, arXiv:2305.09636. Directions are compared, not sizes: theirs are
of 60,000 hours of speech and hundreds of millions of weights.

## Every comparison

{show(findings)}

Each number is one seed, in the order of the seeds. A gain is positive if it points the way of the paper, for errors and
distances, too. A comparison holds if every seed does; beside that stands in how many seeds the 95 % interval of a
paired bootstrap over the items excludes 0.

## Content and voice

{chr(10).join(_split(results, split, where) for split, where in WHERE.items())}
What is spoken are the semantic codes of real sentences, alone or behind {PROMPT_SECONDS:g} s of other sentences of the
same speaker. Similarity is that of envelope and pitch (`MelPitchEmbedder`, no learnt weights) to those
{PROMPT_SECONDS:g} s, or to those of another speaker. The codec copy is the ceiling, another speaker's copy the floor.
Pseudo-speakers are pitch, speed and accent of two synthetic voices: the known ones lie close together, the unseen ones
far from all of them. CER is of what Moonshine hears; against another item's text it shows what any speech at all would
get.

## Speed

{_speed(results)}

{budget.speed_seconds:g} s of speech behind a prompt of {PROMPT_SECONDS:g} s, one row, acoustic codes without the codec;
median of {budget.speed_rounds} rounds of each seed, in turns, and the median of the ratios formed round by round.

## Iterations

{iterations_table(results, budget)}

With a prompt, against the codec copy of the speaker's own sentence. "At once" predicts all levels in one pass, which is
not the paper's decoding.

## Windows, streaming, edits, dialogues

![every seed a dot, the mean a bar](acoustic_quality.png)

{quality_section(results)}

{language_section(results, folders)}

## What was run

{_what_was_run(results, budget, folders)}

## What it does not show

{LIMITS}

{language_limits(budget)}"""


LIMITS = f"""AudioLM's stages deviate from the paper in three ways, all made for so small a budget: positions of prefix
and target run along one axis of time (`prefix_stride`), rows of codes start at the vectors that they stand for
(`row_init`), and a share of the codes that a stage reads of its own output is random in training (`code_noise`).
"{PLAIN}" in the tables above has as many steps and none of the three, the first levels alone, and was trained for
fewer seeds. Utterances of one speaker are joined, as the corpus has no recordings longer than a sentence. Repeats of
semantic codes are kept, as in SoundStorm's baseline. Above "Language" every comparison is on codes of real
speech. SoundStorm's prompts in training are other sentences of the speaker, its codes are tied to the codec's vectors,
and beyond its window it hears the voice prompt again in every window: part of what it gains on AudioLM over half a
minute is that.

Iterations trade the expected sound of a single greedy pass for a drawn one. Recognisers and distances may favour the
expected; how natural either sounds is not measured. Drift is of few speakers and short segments.

The unit of ABX is a sentence of which one slot differs, not a phone: the corpus has no alignments, and errors are not
those of the published tables: in a sentence all that does not differ helps the alignment, and the voices are one
synthesiser's. "B in the voice of X" is ours: A says what X says in another voice, B another sentence in the voice of
X. Within a speaker, X is the same pitch and accent at {SLOWER:g} of the speed, as the synthesiser says the same text
in the same samples. The encoder under the semantic codes was trained with transcripts (CTC), w2v-BERT was not: that
the words are in them is by design here. What semantic tokens sound like is SoundStorm's expected sound without a
prompt, in one pass. No seed varies corpus, encoder or semantic tokenizer.

Windows, streaming, edits and dialogues are measured on few items, and their comparisons of sound (jumps, clicks) are
proxies; nobody listened. Columns with fewer numbers than seeds are of the first seeds alone. Dialogues are sentences of
single speakers put end to end, in training as in the test, as the corpus has no dialogue: nobody interrupts or answers,
and what SoundStorm's own dialogues have of that is not learnt. With only twelve voices of one synthesiser, many pairs
of speakers are hardly told apart by the measure, not even in the codec's copies.

Speed is of one row on one core, where AudioLM's small steps cost least beside SoundStorm's passes; the paper's is of a
TPU. The codec is residual k-means with Griffin-Lim: even its copies cost a recogniser some words."""


def _split(results: Results, split: str, where: str) -> str:
    return f"{where[0].upper()}{where[1:]}, unseen sentences:\n\n{systems_table(results, split)}\n"


def _speed(results: Results) -> str:
    first = next(iter(results.values()))
    names = [key.split("/")[1] for key in first if key.startswith("speed/")]
    rows = []
    for name in names:
        took = [value(SECONDS, series[f"speed/{name}/seconds"]) for series in results.values()]
        ratios = [_ratio(series, name) for series in results.values()]
        rows.append([name, numbers(took, SECONDS), ", ".join(f"{one:.1f}" for one in ratios)])
    return table(["system", SECONDS.label, f"{MODELS[0]} takes so many times as long"], rows)


def _ratio(series: Mapping[str, Series], name: str) -> float:
    theirs, ours = ([row[0] for row in series[f"speed/{one}/seconds"] if row] for one in (MODELS[0], name))
    return ratio(theirs, ours).median


def _what_was_run(results: Results, budget: Budget, folders: Folders) -> str:
    config = budget.quickstart_config()
    trained = ("codec", "soundstorm", "dialogue", "audiolm", "measured")
    rows = [
        [
            str(seed),
            *(_cpu_seconds(folders, f"{name}-{seed}") for name in trained),
            f"{_last_row(folders.soundstorm(seed) / 'run')['cross_entropy']:.2f}",
            *(f"{_last_row(folders.audiolm(seed) / 'run' / stage)['loss']:.2f}" for stage in ("coarse", "fine")),
        ]
        for seed in results
    ]
    losses = ("last loss: SoundStorm", "coarse", "fine")
    costs = table(["seed", "codec, CPU s", "SoundStorm", "its dialogues", "AudioLM", "measurements", *losses], rows)
    pairs = mean(json.loads(folders.result("tokens", seed).read_text())["notes"]["num_pairs"] for seed in results)
    shared = ", ".join(
        f"{name} {_cpu_seconds(folders, name, folders.quickstart)} CPU s" for name in ("corpus", "encoder", "tokens")
    )
    return f"""- Speech: {config.corpus["num_sentences"]:,} training sentences in English and French, spoken by SVOX
  Pico in {config.corpus["num_speakers"]} pseudo-voices; the quickstart's corpus, CTC encoder and semantic codes
  ({config.semantic.codebook_size:,} at {config.encoder.frame_rate:g} Hz), made once ({shared}).
- Codec of each seed: residual k-means, {config.codec.num_codebooks} levels of {config.codec.codebook_size} at 25 Hz.
- SoundStorm of each seed: the quickstart's, {budget.soundstorm_steps} steps, with the paper's level-by-level decoding,
  16 iterations of the first level and one of each other; windows of {_window(config.acoustic)}.
- SoundStorm of dialogues: {budget.dialogue_steps} steps further, {100 * budget.dialogue_share:.0f} % of the utterances
  as turns of dialogues of 2 to 4 turns, the others alone; two marks; windows of {budget.dialogue_frames} frames.
- AudioLM of each seed: coarse stage {budget.num_coarse} levels, {budget.coarse_steps} steps, windows of
  {budget.window_seconds:g} s; fine stage the other {config.codec.num_codebooks - budget.num_coarse} levels,
  {budget.fine_steps} steps, windows of 3 s; batches of {budget.batch_size}, width {budget.width}, {budget.num_layers}
  layers, Muon at {budget.learning_rate:g}, code_noise {budget.code_noise:g}; temperature of the coarse draws
  {budget.coarse_temperature:g}, of the fine ones {budget.fine_temperature:g}.
- Items: {budget.num_items} sentences of each split for content and voice, {budget.num_iteration_items} for
  iterations and reconstruction, {budget.num_long} speakers of each split for {budget.long_seconds:g} s in segments of
  {SEGMENT_SECONDS:g} s, {pairs:.0f} minimal pairs with two triples for each condition; {budget.num_windowed} speakers
  of each split for windows, {budget.num_streamed} for streaming with {budget.stream_seconds:g} s or more each,
  {budget.num_converted} sentences of each split for conversion, {budget.num_edits} pairs for spans said anew and
  {budget.num_dialogues} dialogues of each split.
- CER is `{CER.signature()}`.

{costs}

{language_costs(results, budget, folders)}"""


def _window(config: SoundStormStageConfig) -> str:
    return "any length" if config.max_frames is None else f"{config.max_frames} frames"


def _cpu_seconds(folders: Folders, name: str, root: Path | None = None) -> str:
    """Return what a step took, or a dash where it was made elsewhere."""
    names = [name]
    if name.startswith("measured-"):
        names = [f"{one}-{name.split('-')[1]}" for one in MEASUREMENTS]
    paths = [path for one in names if (path := (root or folders.root) / "steps" / f"{one}.json").exists()]
    if not paths:
        return "-"
    return f"{sum(json.loads(path.read_text())['cpu_seconds'] for path in paths):,.0f}"


def _last_row(folder: Path) -> dict[str, float]:
    return json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8").splitlines()[-1])
