"""Findings of AudioPaLM (arXiv:2306.12925, section 5) in miniature: direction and spread over three seeds.

    python -m benchmarks.evidence.audiopalm --work runs/evidence           # some 20 minutes on two cores
    SPEECHLLM_WHISPER_BASE=whisper-base python -m benchmarks.evidence.audiopalm --work runs/evidence

    claim                                  compared at equal steps and tokens
    pretrained text weights beat scratch   text LM extended, or random weights of the same size
    combined beats direct                  a mixture with [ASR AST], decoded by it, or one of [ASR] and [AST] alone
    better tokens, better model            k-means on log-mel, on an encoder trained by CTC, on Whisper's

What is finished in the work folder is kept, so a run that was stopped continues. Every training run uses one thread.
"""

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.evidence.parts import WHISPER_VARIABLE, build_corpus, build_text_lm, build_tokens, use_one_thread
from benchmarks.evidence.plan import LADDER, TINY, Budget, Folders, RunSpec, plan
from benchmarks.evidence.plot import draw
from benchmarks.evidence.run import train_and_score
from benchmarks.evidence.summary import Finding, Results, claims, judge, show
from benchmarks.machine import processor_name
from benchmarks.measure import write_text
from speechllm.metrics.text import BLEU, WER

HERE = Path(__file__).parent


def run_once(spec: RunSpec, budget: Budget, folders: Folders) -> None:
    """Make one run, unless its result is there already (results are written whole)."""
    path = folders.run(spec.key)
    if path.exists():
        return
    write_text(path, json.dumps(train_and_score(spec, budget, folders), ensure_ascii=False))


def in_processes(calls: Iterable[tuple[Callable[..., None], tuple[Any, ...]]], num_workers: int) -> None:
    """Run the calls in a pool of single-thread processes; the first error stops everything."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=use_one_thread) as pool:
        futures = [pool.submit(function, *arguments) for function, arguments in calls]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def experiment(
    budget: Budget, folders: Folders, tokenizers: tuple[str, ...], seeds: tuple[int, ...], num_workers: int
) -> tuple[list[Finding], Results]:
    """Make whatever is missing, then judge the claims."""
    use_one_thread()
    specs = plan(tokenizers, seeds)
    if any(not folders.run(spec.key).exists() for spec in specs):
        if folders.given_corpus is None:
            build_corpus(budget, folders)
        # The longest first, so that both workers end together.
        longest_first = sorted(tokenizers, key=("ctc", "whisper", "log-mel").index)
        parts = [(build_tokens, (name, budget, folders)) for name in longest_first]
        in_processes([*parts, *((build_text_lm, (seed, budget, folders)) for seed in seeds)], num_workers)
        in_processes([(run_once, (spec, budget, folders)) for spec in specs], num_workers)
    results = {spec.key: json.loads(folders.run(spec.key).read_text(encoding="utf-8")) for spec in specs}
    return [judge(claim, results, seeds) for claim in claims(tokenizers)], results


def report(findings: list[Finding], results: Results, command: str, missing: str) -> str:
    """Return the text of the report."""
    first = next(iter(results.values()))
    budget = Budget(**first["budget"])
    tokens = [result["cost"]["tokens"] for result in results.values()]
    seconds = [result["cost"]["cpu_seconds"] for result in results.values()]
    counts = [output["report"] for result in results.values() for output in result["outputs"].values()]
    ended = 1 - sum(count["no_eos"] for count in counts) / sum(count["num_sequences"] for count in counts)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sacrebleu", "jiwer"))
    return f"""# Findings of AudioPaLM in miniature

`{command}`

{processor_name()}, one thread a run; {packages}.{missing}

![every seed a dot, the mean a bar](audiopalm.png)

{show(findings)}

Each number is one seed, in the order of the seeds. A gain is positive if it points the way of the paper, for WER too.
A finding holds if every seed does; beside that stands in how many seeds the 95 % interval of a paired bootstrap over
the sentences excludes 0.
BLEU is `{BLEU.signature()}`, over both directions; WER is `{WER.signature()}`.

## What was run

- Speech: {budget.num_sentences:,} training sentences in English and French, spoken by SVOX Pico with pitch and speed
  as pseudo-speakers; {budget.num_test} unseen sentences, once by training speakers and once by unseen ones, in both
  directions.
- Model: Llama, width {budget.hidden_size}, {budget.num_layers} layers, BPE of {budget.vocab_size}; audio rows start
  from the k-means centroids. Text pretraining: {budget.text_steps} steps on up to {budget.num_texts:,} sentences of
  the same grammar in both languages and as bilingual lines, none of them held out; a new model for every seed.
- Training on speech, alike in every run: {budget.steps} steps of {budget.rows_per_batch} packed rows of
  {budget.max_tokens}, that is {statistics.mean(tokens):,.0f} tokens and {statistics.mean(seconds):,.0f} CPU seconds
  ({min(seconds):,.0f} to {max(seconds):,.0f}); Muon, {budget.learning_rate:g}, falling to 0.
- Tasks in equal shares: [ASR], [AST], [ASR AST]; the direct mixture [ASR], [AST].
- Tokens: {budget.codebook_size} codes at {budget.frame_rate:g} Hz for every tokenizer, fitted once on the training
  speech (seed 0); the CTC encoder was trained for {budget.ctc_steps} steps on the same sentences.
- WER is of the transcript and BLEU of the translation that one decode of [ASR AST] writes; [AST] writes the
  translation alone. Greedy decoding under the task's grammar;
  {100 * ended:.1f} % of the outputs ended by themselves.

## What it does not show

Combined against direct is decided by the budget here: at equal steps the direct mixture sees half again as many [AST]
examples, and the chain reads its own transcript, which at this word error rate is often wrong. For speech-to-speech
translation, where the paper reports the gain, the quickstart's results have both: the chain is far ahead of [S2ST].

A closed grammar of synthetic speech and a budget far from convergence: directions, not sizes of effects. The text
model was pretrained on the very domain, bilingual lines included; the paper's had seen far more, and of everything.
Seeds vary the model, its pretraining and the order of the examples, not the corpus and not the tokenizers.
"""


def main(
    work: Annotated[Path, typer.Option(help="Folder for corpus, tokens, models and results of runs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report and its picture.")] = HERE,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    num_workers: Annotated[int, typer.Option(help="Runs at once, one thread each.")] = 2,
    corpus: Annotated[Path | None, typer.Option(help="Prepared corpus to use instead of speaking one.")] = None,
    semantic: Annotated[Path | None, typer.Option(help="CTC tokenizer to use instead of training one.")] = None,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Train and score everything, then write audiopalm.md and audiopalm.png."""
    has_whisper = WHISPER_VARIABLE in os.environ
    tokenizers = tuple(name for name in LADDER if has_whisper or name != "whisper")
    budget = TINY if quick else Budget()
    findings, results = experiment(
        budget, Folders(work, corpus, semantic), tokenizers, tuple(range(seeds)), num_workers
    )
    command = f"python -m benchmarks.evidence.audiopalm --seeds {seeds}{' --quick' if quick else ''} --work FOLDER"
    missing = "" if has_whisper else f" Whisper's rung was left out: {WHISPER_VARIABLE} is not set."
    draw(findings, out / "audiopalm.png")
    typer.echo(write_text(out / "audiopalm.md", report(findings, results, command, missing)))


if __name__ == "__main__":
    typer.run(main)
