"""What an evaluation found: plain data that goes to JSON, to the HTML report and to the model card.

report = evaluate_checkpoint(system, "corpus/")
report.find(task="ASR", system="model", name="WER")[0].score.value
report.to_dict()                                        # everything but the sound
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from speechllm.audio import Audio
from speechllm.metrics.score import Score

MODEL, ORIGINAL, CODEC_COPY = "model", "original speech", "codec copy"
RESYNTHESIS, SHUFFLED, OTHERS = "resynthesis", "shuffled audio", "other speakers"
SYSTEM_MEANING = {
    MODEL: "the checkpoint under test",
    ORIGINAL: "ceiling: the recording itself, transcribed by the judge",
    CODEC_COPY: "ceiling: the recording after the codec, without any model; nothing generated can sound better",
    RESYNTHESIS: "the recording's own semantic codes through the acoustic model and the codec: what the LM could reach",
    SHUFFLED: "floor: the model is given the speech of another item; if it does as well, it does not listen",
    OTHERS: "floor: speech of other speakers",
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One score, and what it is a score of."""

    split: str
    task: str
    "Task names of the tag: ASR, or ASR AST S2ST."
    direction: str
    "en, or en-fr."
    output: str
    "The output field that is scored: transcript, translation, audio, translated_audio."
    system: str
    "model, or one of the ceilings and floors beside it."
    score: Score
    note: str = ""
    "What a reader must know: weak labels, a circular judge."


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One item with what came out, to be read and heard."""

    split: str
    tag: str
    item: str
    texts: dict[str, str]
    "What stands where: input, reference and output texts, and what the judge heard."
    audios: dict[str, Audio]
    "input, reference, codec copy, generated."


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one task went: time and decode counters."""

    split: str
    tag: str
    num_items: int
    processing_seconds: float
    audio_seconds: float | None
    "Seconds of input speech, for TTS of output speech; None without speech."
    counters: dict[str, int]
    "Sequences, tokens, and how many did not end by themselves, looped, were too long or stayed empty."

    @property
    def real_time_factor(self) -> float | None:
        """Processing time over audio time; below 1 is faster than real time."""
        return self.processing_seconds / self.audio_seconds if self.audio_seconds else None


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationReport:
    """Everything that was measured, and how."""

    title: str
    measurements: list[Measurement]
    samples: list[Sample]
    runs: list[Run]
    config: dict[str, Any]
    environment: dict[str, Any]
    "Versions, machine, threads, command, time."
    checkpoint: dict[str, Any]
    "What the checkpoint says about itself."
    corpus: dict[str, Any]
    judges: dict[str, str]
    "Language -> name of the judge, or why there is none."
    limits: list[str]
    "What these numbers do not say."
    histories: dict[str, list[dict[str, float | int]]] = field(default_factory=dict)
    "Training curves by stage: rows with `step` and losses."

    def find(
        self, *, split: str | None = None, task: str | None = None, direction: str | None = None,
        output: str | None = None, system: str | None = None, name: str | None = None,
    ) -> list[Measurement]:  # fmt: skip
        """Return the measurements that fit; `name` is the score's name."""
        wanted = {"split": split, "task": task, "direction": direction, "output": output, "system": system}
        return [
            m
            for m in self.measurements
            if all(value is None or getattr(m, key) == value for key, value in wanted.items())
            and (name is None or m.score.name == name)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; audio is left out, its length stands in its place."""
        return {
            "format_version": 1,
            "title": self.title,
            "measurements": [dataclasses.asdict(m) for m in self.measurements],
            "runs": [dataclasses.asdict(run) | {"real_time_factor": run.real_time_factor} for run in self.runs],
            "samples": [
                {
                    "split": s.split,
                    "tag": s.tag,
                    "item": s.item,
                    "texts": s.texts,
                    "audio_seconds": {name: round(audio.duration_seconds, 3) for name, audio in s.audios.items()},
                }
                for s in self.samples
            ],
            "judges": self.judges,
            "limits": self.limits,
            "checkpoint": self.checkpoint,
            "corpus": self.corpus,
            "config": self.config,
            "environment": self.environment,
            "histories": self.histories,
        }
