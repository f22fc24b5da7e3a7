"""Findings of AudioLM and SoundStorm in miniature: direction and spread over seeds.

    python -m benchmarks.evidence.acoustic --work runs/acoustic            # 90 min, one core
    python -m benchmarks.evidence.acoustic --work runs/acoustic --quickstart runs/quickstart     # with its codes

    claim                                          compared
    content stays, the voice goes, a prompt        AudioLM and SoundStorm on the codes of real sentences,
    brings it back                                 without and with 3 s of their speaker
    SoundStorm is faster, closer, steadier         against coarse and fine stages trained on the same codes
    16 iterations are enough                       SoundStorm with 1 to 32
    what windows, streaming, infilling,            the same codes in one pass, offline, recorded, in the own voice
    conversion and dialogues cost                  and turn by turn
    semantic tokens mean, acoustic tokens sound    ABX on minimal pairs and on letters, distance of what is made of them
    AudioLM has learnt the language                its first stage on pairs of sentences; what it continues

What is finished in the work folder is kept, so that a run that was stopped goes on. Every step uses one thread.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.evidence.acoustic.continuations import measure_continuations
from benchmarks.evidence.acoustic.dialogues import measure_dialogues
from benchmarks.evidence.acoustic.edits import measure_conversion, measure_infilling
from benchmarks.evidence.acoustic.iterations import measure_iterations
from benchmarks.evidence.acoustic.language_plot import draw_language
from benchmarks.evidence.acoustic.language_summary import language_claims
from benchmarks.evidence.acoustic.likelihoods import measure_likelihoods
from benchmarks.evidence.acoustic.long_speech import measure_long
from benchmarks.evidence.acoustic.parts import model_steps, shared_steps
from benchmarks.evidence.acoustic.phones import measure_phones
from benchmarks.evidence.acoustic.plan import TINY, Budget, Folders
from benchmarks.evidence.acoustic.plot import draw
from benchmarks.evidence.acoustic.quality_plot import draw_quality
from benchmarks.evidence.acoustic.report import report
from benchmarks.evidence.acoustic.speed import measure_speed
from benchmarks.evidence.acoustic.streaming import measure_streaming
from benchmarks.evidence.acoustic.summary import MEASUREMENTS, TIMED, claims, judge, load
from benchmarks.evidence.acoustic.tokens import measure_tokens
from benchmarks.evidence.acoustic.voices import measure_voices
from benchmarks.evidence.acoustic.windows import measure_windows
from benchmarks.measure import write_text
from recipes.workflow import Step, run_steps

HERE = Path(__file__).parent
FUNCTIONS = {
    "voices": measure_voices,
    "long": measure_long,
    "iterations": measure_iterations,
    "tokens": measure_tokens,
    "likelihoods": measure_likelihoods,
    "continuations": measure_continuations,
    "phones": measure_phones,
    "speed": measure_speed,
    "windows": measure_windows,
    "streaming": measure_streaming,
    "infilling": measure_infilling,
    "conversion": measure_conversion,
    "dialogues": measure_dialogues,
}


def run_all(budget: Budget, folders: Folders, seeds: tuple[int, ...], num_workers: int) -> None:
    """Make whatever is missing, those parts first that all seeds share, then seed by seed, and time alone."""
    if shared := shared_steps(budget, folders):
        run_steps(shared, folders.quickstart, num_workers=num_workers)
    for seed in seeds:
        trained = model_steps(seed, budget, folders)
        needs = tuple(step.name for step in trained)
        wanted = [name for name in MEASUREMENTS if name != "dialogues" or seed < budget.num_dialogue_seeds]
        measured = {
            name: Step(f"{name}-{seed}", FUNCTIONS[name], (seed, budget, folders), needs=needs) for name in wanted
        }
        untimed = [step for name, step in measured.items() if name not in TIMED]
        run_steps([*trained, *untimed], folders.root, num_workers=num_workers)
        for name in TIMED:
            if name in measured:
                run_steps([replace(measured[name], needs=())], folders.root, num_workers=1)


def write_report(budget: Budget, folders: Folders, seeds: tuple[int, ...], command: str, out: Path) -> Path:
    """Write acoustic.md and the pictures beside it."""
    results = load(folders, seeds)
    findings = [judge(claim, results) for claim in (*claims(), *language_claims())]
    draw(results, budget, out.with_suffix(".png"))
    draw_quality(results, out.with_name(f"{out.stem}_quality.png"))
    draw_language(results, out.with_name(f"{out.stem}_language.png"))
    return write_text(out, report(findings, results, budget, folders, command))


def main(
    work: Annotated[Path, typer.Option(help="Folder for everything that is made.")],
    quickstart: Annotated[
        Path | None, typer.Option(help="A finished quickstart whose corpus and codes are used.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = HERE.parent / "acoustic.md",
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    num_workers: Annotated[int, typer.Option(help="Steps at a time, each with one thread.")] = 1,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Train, measure and write the report."""
    budget, folders, numbers = TINY if quick else Budget(), Folders(work, quickstart), tuple(range(seeds))
    run_all(budget, folders, numbers, num_workers)
    given = " --quickstart FOLDER" if quickstart else ""
    command = (
        f"python -m benchmarks.evidence.acoustic --seeds {seeds} --work FOLDER{given}{' --quick' if quick else ''}"
    )
    typer.echo(write_report(budget, folders, numbers, command, out))


if __name__ == "__main__":
    typer.run(main)
