"""Acoustic models side by side: our SoundStorm and AudioLM against soundstorm-pytorch and audiolm-pytorch.

    python -m benchmarks.acoustic

Random weights: speed does not depend on what is said. The peers are measured in the same process and rounds where they
are installed; where they are not, the result says so. They bring many packages along, so give them an environment of
their own, with what pyproject.toml lists beside them.

Models share width, depth and number of heads, not the number of weights: the peers' are other architectures. So a table
counts the weights of each, and sets what its own arithmetic needs against what the machine can do.

The result file is written anew after every job: a run that is stopped leaves what it has measured.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import acoustic_jobs as ours
from benchmarks import acoustic_peers as peers
from benchmarks.acoustic_jobs import QUICK, Entrant, Sizes
from benchmarks.machine import RESULTS, Machine, measure_machine, threads
from benchmarks.measure import Spread, clock_for, interleave, peak_memory_mib, rates, ratio, table, write_text

Build = Callable[[Sizes], Entrant]
BFLOAT16 = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done, and who does it."""

    title: str
    what: Callable[[Sizes], str]
    "A sentence on the job."
    unit: str
    entrants: Sequence[Build]
    "Ours; the first is the one that ratios are formed with."
    peer: peers.Peer
    peer_entrant: Build
    warmup: int = 0
    "Rounds that do not count; long jobs need none."


JOBS = (
    Job(
        title="SoundStorm, generation",
        what=lambda sizes: (
            f"{sizes.spoken_frames / sizes.frame_rate:g} s of audio: {sizes.spoken_frames} frames x "
            f"{sizes.num_codebooks} levels in {sum(sizes.iterations)} passes, one row, no prompt."
        ),
        unit="s of audio",
        entrants=(
            ours.soundstorm_generation,
            lambda sizes: ours.soundstorm_generation(sizes, dtype=BFLOAT16),
            lambda sizes: ours.soundstorm_generation(sizes, feed_forward_factor=5),
        ),
        peer=peers.SOUNDSTORM,
        peer_entrant=peers.soundstorm_generation,
    ),
    Job(
        title="SoundStorm, training step",
        what=lambda sizes: (
            f"Masks, forward, backward, Adam: {sizes.batch_size} rows of {sizes.trained_frames} frames (ours padded to "
            f"{ours.padded_length(sizes.trained_frames)}, as in training) x {sizes.num_codebooks} levels."
        ),
        unit="steps",
        entrants=(
            ours.soundstorm_training,
            lambda sizes: ours.soundstorm_training(sizes, dtype=BFLOAT16),
            lambda sizes: ours.soundstorm_training(sizes, feed_forward_factor=5),
        ),
        peer=peers.SOUNDSTORM,
        peer_entrant=peers.soundstorm_training,
        warmup=1,
    ),
    Job(
        title="AudioLM, coarse stage",
        what=lambda sizes: (
            f"{sizes.stage_frames * sizes.num_coarse} tokens ({sizes.stage_frames / sizes.frame_rate:g} s of audio) "
            f"after {sizes.stage_frames // ours.FRAMES_PER_CONDITION} semantic codes, one row, with cache."
        ),
        unit="tokens",
        entrants=(lambda sizes: ours.stage_generation(sizes, "coarse"),),
        peer=peers.AUDIOLM,
        peer_entrant=peers.coarse_generation,
    ),
    Job(
        title="AudioLM, fine stage",
        what=lambda sizes: (
            f"{sizes.stage_frames * sizes.num_fine} tokens ({sizes.stage_frames / sizes.frame_rate:g} s of audio) "
            f"after {sizes.stage_frames * sizes.num_coarse} coarse ones, one row, with cache. The peer would need "
            "minutes for that; it writes fewer tokens, after a context of the length that is typical of the job (the "
            "root mean square), whose reading is not counted. Compared per token. Longer audio is cut into chunks, "
            f"which ours makes side by side: the second row has {sizes.num_chunks}, "
            f"{sizes.num_chunks * sizes.stage_frames / sizes.frame_rate:g} s of audio. The peer has no chunks; its "
            "whole context grows with the audio."
        ),
        unit="tokens",
        entrants=(
            lambda sizes: ours.stage_generation(sizes, "fine"),
            lambda sizes: ours.stage_generation(sizes, "fine", num_rows=sizes.num_chunks),
        ),
        peer=peers.AUDIOLM,
        peer_entrant=peers.fine_generation,
    ),
    Job(
        title="AudioLM, coarse training step",
        what=lambda sizes: (
            f"Forward, backward, Adam: {sizes.batch_size} rows of {sizes.stage_frames // ours.FRAMES_PER_CONDITION} "
            f"semantic codes and {sizes.stage_frames * sizes.num_coarse} coarse ones. The peer trains on both parts, "
            "we on the coarse codes alone; the operations counted are those of the coarse codes' heads for both."
        ),
        unit="steps",
        entrants=(ours.coarse_training, lambda sizes: ours.coarse_training(sizes, dtype=BFLOAT16)),
        peer=peers.AUDIOLM,
        peer_entrant=peers.coarse_training,
        warmup=1,
    ),
)


def measure(job: Job, sizes: Sizes, machine: Machine, *, rounds: int) -> str:
    """Return the job's section: all entrants that are there, taking turns."""
    entrants = [build(sizes) for build in job.entrants]
    has_peer = job.peer.version is not None
    if has_peer:
        entrants.append(job.peer_entrant(sizes))
    seconds = _seconds(entrants, rounds=rounds, warmup=job.warmup, num_threads=machine.num_threads)
    peer = entrants[-1] if has_peer else None
    rows = [_row(entrant, seconds, peer, machine) for entrant in entrants]
    absent = "" if has_peer else f"\n\n{job.peer.package} is not installed: it was not measured."
    return f"## {job.title}\n\n{job.what(sizes)}{absent}\n\n{table(_header(job.unit), rows)}"


def _seconds(entrants: Sequence[Entrant], *, rounds: int, warmup: int, num_threads: int) -> dict[str, list[float]]:
    """Return what each entrant took in each round, without what it did before its tokens counted."""
    before = {f"before {entrant.name}": entrant.before for entrant in entrants if entrant.before is not None}
    candidates = {entrant.name: entrant.run for entrant in entrants} | before
    seconds = interleave(candidates, rounds=rounds, warmup=warmup, clock=clock_for(num_threads))
    for entrant in entrants:
        if entrant.before is not None:
            apart = seconds.pop(f"before {entrant.name}")
            seconds[entrant.name] = [a - b for a, b in zip(seconds[entrant.name], apart, strict=True)]
    return seconds


def _header(unit: str) -> list[str]:
    return [
        "program", "weights used, M", "needed, TFLOP", "seconds", f"{unit}/s", "% of matmul ceiling",
        "% of copy bandwidth", "peer / this",
    ]  # fmt: skip


def _row(entrant: Entrant, seconds: Mapping[str, list[float]], peer: Entrant | None, machine: Machine) -> list[str]:
    took = seconds[entrant.name]
    gigaflops, gigabytes = machine.matmul[entrant.dtype].median, machine.bandwidth.median
    arithmetic = Spread.of([100 * rate / gigaflops for rate in rates(entrant.operations / 1e9, took)])
    streaming = Spread.of([100 * rate / gigabytes for rate in rates(entrant.streamed_bytes / 1e9, took)])
    gain = "not measured"
    if peer is not None:
        per_unit = {one.name: [value / one.amount for value in seconds[one.name]] for one in (entrant, peer)}
        gain = ratio(per_unit[peer.name], per_unit[entrant.name]).show(2)
    return [
        entrant.name,
        f"{entrant.num_weights / 1e6:.1f}",
        f"{entrant.operations / 1e12:.3f}",
        Spread.of(took).show(2),
        Spread.of(rates(entrant.amount, took)).show(2),
        arithmetic.show(0),
        streaming.show(0) if entrant.streamed_bytes else "",
        gain,
    ]


def report(command: str, machine: Machine, sizes: Sizes, sections: Sequence[str], waiting: Sequence[str]) -> str:
    """Return the whole result file: what is measured, and what is still to come."""
    installed = ", ".join(
        f"{peer.package} {peer.version or 'not installed'}" for peer in (peers.SOUNDSTORM, peers.AUDIOLM)
    )
    unfinished = f"\n\n**Not finished.** Still to be measured: {'; '.join(waiting)}." if waiting else ""
    return f"""# Acoustic models

`{command}`

{machine.describe()}

Peers: {installed}. Random weights; width {sizes.width}, {sizes.num_layers} layers,
{sizes.num_heads} heads, codebooks of {sizes.num_codes:,}. Programs take turns in every round; median (min to max) over
rounds, the last column formed round by round, for the same amount of work. `weights used` are those that a frame or
token is multiplied with, `needed` what these need for the job in operations, attention included; a program may compute
more. Our Conformer is the paper's; the peer's convolution module has twice the width and a kernel of 31, so that a row
with a wider feed-forward stands beside ours, with more weights than the peer. For stages that write token by token,
the share of copy bandwidth counts weights and cache as read once for each token; copying counts reading and writing, so
that reading alone may exceed it. Peak memory so far: {peak_memory_mib():,.0f} MiB.{unfinished}

{chr(10).join(section + chr(10) for section in sections)}"""


def chosen_jobs(names: Sequence[str]) -> list[Job]:
    """Return the jobs whose titles contain one of the names; all without names."""
    found = [job for job in JOBS if not names or any(name in job.title for name in names)]
    if not found:
        raise typer.BadParameter(f"no job is called {', '.join(names)}; there are {'; '.join(j.title for j in JOBS)}")
    return found


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "acoustic.md",
    num_threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often the entrants take turns.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Part of a job's title; all if not given.")] = None,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Time the acoustic models, job by job."""
    jobs = chosen_jobs(only or [])
    machine = measure_machine(num_threads=num_threads, quick=quick)
    sizes, rounds = (QUICK, 2) if quick else (Sizes(), rounds)
    command = (
        f"python -m benchmarks.acoustic --num-threads {num_threads} --rounds {rounds}{' --quick' if quick else ''}"
        + "".join(f" --only {shlex.quote(name)}" for name in only or [])
    )
    sections: list[str] = []
    with threads(num_threads):
        for done, job in enumerate(jobs, start=1):
            sections.append(measure(job, sizes, machine, rounds=rounds))
            waiting = [one.title for one in jobs[done:]]
            typer.echo(write_text(out, report(command, machine, sizes, sections, waiting)))


if __name__ == "__main__":
    typer.run(main)
