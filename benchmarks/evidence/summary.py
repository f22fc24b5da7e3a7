"""From runs to claims: what was compared, by how much it differs in every seed, and whether the direction holds.

    figures = score_runs(results)                    # {run key: {"BLEU test/AST": Figure(...), ...}}
    findings = compare(figures, tokenizers, seeds)
    write_report(findings, ...)                      # the table of audiopalm.md

A direction "holds" if the mean difference and every seed's difference point the way of the paper.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.evidence.plan import BASE_TOKENIZER, LADDER, RunSpec
from benchmarks.evidence.verdict import gains, holds, verdict
from benchmarks.measure import table
from speechllm.metrics.text import BLEU, WER

Results = Mapping[str, Mapping[str, Any]]
"Run key to what `train_and_score` returned."
FINDINGS = ("pretrained text weights beat scratch", "combined beats direct", "better tokens, better model")
"AudioPaLM, arXiv:2306.12925, section 5: the ablations of initialisation, of combined tasks, of tokenizers."


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: a kind of run and one of its outputs."""

    label: str
    tokenizer: str = BASE_TOKENIZER
    start: str = "text"
    mix: str = "combined"
    split: str
    "Which held-out split."
    field: str
    "`transcript` (scored by WER) or `translation` (scored by BLEU)."

    def run_key(self, seed: int) -> str:
        """Name of the run of a seed."""
        return RunSpec(tokenizer=self.tokenizer, start=self.start, mix=self.mix, seed=seed).key  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`better` should beat `worse`."""

    finding: str
    measure: str
    better: Side
    worse: Side


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim with its numbers, one for each seed."""

    claim: Claim
    better: tuple[float, ...]
    worse: tuple[float, ...]
    num_clear: int
    "Seeds in which the 95 % interval of the paired bootstrap over sentences excludes 0 on the claim's side."

    @property
    def gains(self) -> tuple[float, ...]:
        """How much better in each seed: positive is the paper's direction, for WER too."""
        return gains(self.better, self.worse, higher_is_better=self.claim.better.field == "translation")

    @property
    def holds(self) -> bool:
        """True if every seed points the way of the claim."""
        return holds(self.gains)

    @property
    def verdict(self) -> str:
        """In words."""
        return verdict(self.gains, self.num_clear)


def claims(tokenizers: Sequence[str]) -> list[Claim]:
    """Return what is compared, with two tokenizers or with three."""
    found = []
    for split, where in (("test", "unseen sentences"), ("test_speakers", "unseen sentences and speakers")):
        bleu, wer = f"AST BLEU, {where}", f"ASR WER, {where}"
        measures = ((bleu, "translation"), (wer, "transcript"))
        for measure, field in measures:
            pretrained = Side(label="pretrained", split=split, field=field)
            scratch = Side(label="scratch", start="scratch", split=split, field=field)
            found.append(Claim(finding=FINDINGS[0], measure=measure, better=pretrained, worse=scratch))
        combined = Side(label="[ASR AST]", split=split, field="translation")
        direct = Side(label="[AST]", mix="direct", split=split, field="translation")
        found.append(Claim(finding=FINDINGS[1], measure=bleu, better=combined, worse=direct))
        rungs = [name for name in LADDER if name in tokenizers]
        for (lower, upper), (measure, field) in itertools.product(itertools.pairwise(rungs), measures):
            better = Side(label=upper, tokenizer=upper, split=split, field=field)
            worse = Side(label=lower, tokenizer=lower, split=split, field=field)
            found.append(Claim(finding=FINDINGS[2], measure=measure, better=better, worse=worse))
    return sorted(found, key=lambda claim: FINDINGS.index(claim.finding))


def judge(claim: Claim, results: Results, seeds: Sequence[int]) -> Finding:
    """Score both sides of a claim in every seed."""
    metric = BLEU if claim.better.field == "translation" else WER
    better, worse, num_clear = [], [], 0
    for seed in seeds:
        references, ours = _texts(results[claim.better.run_key(seed)], claim.better)
        others, theirs = _texts(results[claim.worse.run_key(seed)], claim.worse)
        assert references == others, "both sides answer the same sentences"
        better.append(_value(metric, references, ours))
        worse.append(_value(metric, references, theirs))
        low, high = metric.compare(references, ours, theirs).interval
        num_clear += low > 0 if metric.higher_is_better else high < 0
    return Finding(claim=claim, better=tuple(better), worse=tuple(worse), num_clear=num_clear)


def _texts(result: Mapping[str, Any], side: Side) -> tuple[list[str], list[str]]:
    output = result["outputs"][side.split]
    return output["references"][side.field], output["hypotheses"][side.field]


def _value(metric: Any, references: Sequence[str], hypotheses: Sequence[str]) -> float:
    value = metric.score(references, hypotheses).value
    assert value is not None, "there are references, and every prompt has an output"
    return value


HEADER = [
    "finding",
    "measure",
    "better side, each seed",
    "other side, each seed",
    "mean gain",
    "gain, each seed",
    "verdict",
]


def show(findings: Sequence[Finding]) -> str:
    """Return the table."""
    rows = []
    for finding in findings:
        claim = finding.claim
        rows.append(
            [
                claim.finding,
                claim.measure,
                f"{claim.better.label}: {_numbers(finding.better)}",
                f"{claim.worse.label}: {_numbers(finding.worse)}",
                f"{statistics.mean(finding.gains):+.1f}",
                _numbers(finding.gains, sign=True),
                finding.verdict,
            ]
        )
    return table(HEADER, rows)


def _numbers(values: Sequence[float], sign: bool = False) -> str:
    return ", ".join(f"{value:+.1f}" if sign else f"{value:.1f}" for value in values)
