"""An evaluation report at the smallest size: one score, one that was not measured, one ceiling.

write_report(tiny_report(), tmp_path)
"""

import dataclasses

from speechllm.evaluation.results import CODEC_COPY, MODEL, EvaluationReport, Measurement
from speechllm.metrics import Score

WER = Score(
    name="WER", value=12.345, unit="%", num_scored=9, num_failed=1, signature="jiwer|x", higher_is_better=False,
    interval=(10.0, 15.0), reason="1 without an output",
)  # fmt: skip
UNJUDGED = Score(
    name="CER", value=None, unit="%", num_scored=0, num_failed=4, signature="jiwer|y", higher_is_better=False,
    reason="not judged: no recogniser",
)  # fmt: skip


def tiny_report() -> EvaluationReport:
    """Return it."""
    first = Measurement(split="test", task="ASR", direction="en", output="transcript", system=MODEL, score=WER)
    speech = Measurement(split="test", task="TTS", direction="fr", output="audio", system=MODEL, score=UNJUDGED)
    ceiling = dataclasses.replace(first, task="TTS", output="audio", system=CODEC_COPY)
    environment = {"command": "speechllm evaluate x", "time": "now", "machine": "m", "versions": {"torch": "2"}}
    return EvaluationReport(
        title="<b>t</b>", measurements=[first, speech, ceiling], samples=[], runs=[], config={"seed": 0},
        environment=environment, checkpoint={}, corpus={"folder": "pico"}, judges={"fr": "not judged"},
        limits=["small"], histories={"lm": [{"step": 1, "loss": 2.0}]},
    )  # fmt: skip
