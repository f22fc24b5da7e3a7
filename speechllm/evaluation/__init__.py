"""Evaluation: a checkpoint and a corpus in; scores beside ceilings and floors, a JSON and an HTML report out."""

from speechllm.evaluation.evaluate import EvaluationConfig, evaluate_checkpoint
from speechllm.evaluation.judges import JudgeConfig, Judges, make_judges
from speechllm.evaluation.report import read_report_json, write_report
from speechllm.evaluation.results import EvaluationReport, Measurement

__all__ = [
    "EvaluationConfig", "EvaluationReport", "JudgeConfig", "Judges", "Measurement", "evaluate_checkpoint",
    "make_judges", "read_report_json", "write_report",
]  # fmt: skip
