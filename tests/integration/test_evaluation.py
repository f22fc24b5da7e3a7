"""The evaluator on a real (tiny, random) checkpoint from disk: numbers are bad, but everything is counted."""

import dataclasses
from pathlib import Path

from speechllm.audio import encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.evaluation import EvaluationConfig, Judges, evaluate_checkpoint, write_report
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.metrics import BootstrapConfig
from tests.support.tiny import tiny_checkpoint, tiny_speech


def test_a_random_checkpoint_from_disk(tmp_path: Path):
    audio = encode_flac(tiny_speech(seconds=0.5))
    records = [
        Record(f"r{i}", "test", "en", f"turn on light {i}", audio, "s", translation=Translation("fr", f"allume {i}"))
        for i in range(2)
    ]
    prepare_corpus(records, tmp_path / "corpus")
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    config = EvaluationConfig(
        splits=("test",),
        bootstrap=BootstrapConfig(num_resamples=10),
        decoding=DecodingConfig(max_text_tokens=8, max_audio_seconds=1.0),
    )
    report = evaluate_checkpoint(checkpoint, tmp_path / "corpus", config, judges=Judges())
    wer = report.find(task="ASR", system="model", name="WER")[0].score
    assert wer.value is not None
    assert wer.num_scored == 2
    unheard = [m.score for m in report.find(output="audio")]
    assert all(score.value is None and score.reason for score in unheard)
    assert all(run.counters["num_sequences"] == run.num_items for run in report.runs)
    assert report.checkpoint["semantic_tokenizer"]["codebook_size"] == 16
    again = evaluate_checkpoint(checkpoint, tmp_path / "corpus", dataclasses.replace(config), judges=Judges())
    assert again.measurements == report.measurements
    assert write_report(report, tmp_path / "report").is_file()
