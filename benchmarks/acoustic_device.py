"""The papers' sizes on one device: SoundStorm speaking half a minute, and AudioLM's stages token by token.

    python -m benchmarks.acoustic_device --device cuda
    python -m benchmarks.acoustic_device --device cpu --quick        # tiny sizes, to see that it runs

    job                    what                                                                   beside it
    SoundStorm             30 s of audio: 1,500 frames x 12 levels in 27 passes, then the codec    matmul ceiling
    AudioLM's stages       3 s of audio, one row and several, weights in float32 and bfloat16      bandwidth limit
    training steps         SoundStorm and the coarse stage                                         matmul ceiling

Random weights: speed does not depend on what is said. A stage that writes token by token must read all of its weights,
and its cache, for every token: bandwidth over these bytes is the most tokens a second that one row can reach. Ceilings
are measured on the same device in the same run (`benchmarks/machine.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import acoustic_jobs as jobs
from benchmarks.acoustic_jobs import PAPER, QUICK, Entrant, Sizes
from benchmarks.machine import RESULTS, Machine, measure_machine, threads
from benchmarks.measure import Spread, clock_for, interleave, rates, table, write_text
from speechllm.models.stage_layouts import STAGES, StageName

Build = Callable[[Sizes], Entrant]
FP32, BF16 = torch.float32, torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done, and in which ways."""

    title: str
    what: Callable[[Sizes], str]
    "A sentence on the job."
    unit: str
    entrants: Sequence[Build]


def stage_job(stage: StageName) -> Job:
    """Return the job of one of AudioLM's stages."""

    def build(dtype: torch.dtype, is_batch: bool) -> Build:
        return lambda sizes: jobs.stage_generation(
            sizes, stage, num_rows=4 * sizes.num_chunks if is_batch else 1, dtype=dtype
        )

    return Job(
        title=f"AudioLM, {stage} stage",
        what=lambda sizes: f"{sizes.stage_frames} frames a row, with cache; weights in the dtype that is named.",
        unit="tokens",
        entrants=(build(FP32, False), build(BF16, False), build(BF16, True)),
    )


JOBS = (
    Job(
        title="SoundStorm, speech",
        what=lambda sizes: (
            f"{sizes.spoken_frames / sizes.frame_rate:g} s of audio: {sizes.spoken_frames} frames x "
            f"{sizes.num_codebooks} levels in {sum(sizes.iterations)} passes, one row, no prompt; then a SoundStream "
            "decoder, whose operations are not counted. Wanted on an H200: 0.15 s."
        ),
        unit="s of audio",
        entrants=(
            jobs.soundstorm_speech,
            lambda sizes: jobs.soundstorm_speech(sizes, dtype=BF16),
            lambda sizes: jobs.soundstorm_generation(sizes, dtype=BF16),
            jobs.codec_decoding,
        ),
    ),
    *map(stage_job, STAGES),
    Job(
        title="SoundStorm, training step",
        what=lambda sizes: f"{sizes.batch_size} rows of {sizes.trained_frames} frames; AdamW.",
        unit="steps",
        entrants=(jobs.soundstorm_training, lambda sizes: jobs.soundstorm_training(sizes, dtype=BF16)),
    ),
    Job(
        title="AudioLM, coarse training step",
        what=lambda sizes: f"{sizes.batch_size} rows of {sizes.stage_frames} frames; AdamW.",
        unit="steps",
        entrants=(jobs.coarse_training, lambda sizes: jobs.coarse_training(sizes, dtype=BF16)),
    ),
)


def measure(job: Job, sizes: Sizes, machine: Machine, *, rounds: int) -> str:
    """Return the job's section; one entrant at a time is in the device's memory."""
    clock, rows = clock_for(machine.num_threads, sizes.device), []
    for build in job.entrants:
        entrant = build(sizes)
        seconds = interleave({entrant.name: entrant.run}, rounds=rounds, warmup=1, clock=clock)[entrant.name]
        rows.append(_row(entrant, seconds, machine))
    header = ["program", "weights used, M", "seconds", f"{job.unit}/s", "% of matmul ceiling"]
    header += ["bandwidth limit, tokens/s", "% of it"]
    return f"## {job.title}\n\n{job.what(sizes)}\n\n{table(header, rows)}"


def _row(entrant: Entrant, seconds: Sequence[float], machine: Machine) -> list[str]:
    reached = Spread.of(rates(entrant.amount, seconds))
    row = [entrant.name, f"{entrant.num_weights / 1e6:.1f}", Spread.of(seconds).show(3), reached.show(1), "", "", ""]
    if entrant.operations:
        ceiling = machine.matmul[entrant.dtype].median
        row[4] = Spread.of([100 * rate / ceiling for rate in rates(entrant.operations / 1e9, seconds)]).show(1)
    if entrant.streamed_bytes:
        limit = entrant.amount / (entrant.streamed_bytes / 1e9 / machine.bandwidth.median)
        row[5:] = [f"{limit:,.0f}", f"{100 * reached.median / limit:.1f}"]
    return row


def report(command: str, machine: Machine, sizes: Sizes, sections: Sequence[str]) -> str:
    """Return the result file."""
    return f"""# Acoustic models at their papers' sizes

`{command}`

{machine.describe()}

Random weights; width {sizes.width}, {sizes.num_layers} layers, {sizes.num_heads} heads, codebooks of
{sizes.num_codes:,}. Median (min to max) over rounds after one that does not count. Copying counts reading and writing,
so that reading alone may exceed the limit.

{chr(10).join(section + chr(10) for section in sections)}"""


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:1, ... or cpu.")] = "cuda",
    out: Annotated[Path | None, typer.Option(help="Markdown file; results/acoustic_<device>.md if not given.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 5,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Time our acoustic models at the papers' sizes on one device."""
    kind = device.partition(":")[0]
    if kind != "cpu" and not torch.cuda.is_available():
        raise typer.BadParameter(f"there is no {device} here; --device cpu runs everything on the processor")
    sizes, rounds = (replace(QUICK if quick else PAPER, device=device)), 2 if quick else rounds
    command = f"python -m benchmarks.acoustic_device --device {device} --rounds {rounds}{' --quick' if quick else ''}"
    sections: list[str] = []
    with threads(1):
        machine = measure_machine(quick=quick, device=device)
        for job in JOBS:
            sections.append(measure(job, sizes, machine, rounds=rounds))
            target = out or RESULTS / f"acoustic_{kind}.md"
            typer.echo(write_text(target, report(command, machine, sizes, sections)))


if __name__ == "__main__":
    typer.run(main)
