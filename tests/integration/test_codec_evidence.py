"""The table of what codecs keep, at the smallest size, with a judge that hears nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.evidence import codec as evidence
from recipes.train_codec import CodecRecipeConfig
from speechllm.audio import save_audio
from speechllm.config import save_config
from speechllm.tokenizers.mel_rvq import MelRVQConfig
from speechllm.tokenizers.vocoder import GriffinLimConfig
from speechllm.training.loop import LoopConfig
from speechllm.training.neural_codec import NeuralCodecTrainConfig
from tests.support.tiny import tiny_acoustic, tiny_speech


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio" / "en").mkdir(parents=True)
    for number in range(6):
        save_audio(tiny_speech(4.0, seed=number), tmp_path / "audio" / "en" / f"p{number}.wav")
    return tmp_path / "audio"


def test_every_codec_and_level_has_a_row(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import typer

    tiny_acoustic()[0].save_pretrained(tmp_path / "mine")
    config = CodecRecipeConfig(
        train=NeuralCodecTrainConfig(loop=LoopConfig(steps=100)), audio=[str(audio)], held_out_share=0.3
    )
    save_config(config, tmp_path / "mine" / "config.yaml")
    small = MelRVQConfig(num_codebooks=2, codebook_size=8, vocoder=GriffinLimConfig(num_iterations=2))
    monkeypatch.setattr(evidence, "MEL_RVQ", small)
    monkeypatch.setattr(evidence, "character_errors", lambda texts, audios: f"{len(texts)} heard")
    (tmp_path / "texts.txt").write_text("".join(f"p{i}: good morning\n" for i in range(6)), encoding="utf-8")
    app = typer.Typer()
    app.command()(evidence.main)
    command = [str(tmp_path / "mine"), "--audio", str(audio), "--texts", str(tmp_path / "texts.txt")]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ")[:2] for line in result.output.splitlines() if line.startswith("| m")]
    assert rows == [["| mine", "1"], ["| mine", "2"], ["| mel-rvq", "1"], ["| mel-rvq", "2"]]
    assert "2 held-out recordings, 2 of them with a text" in result.output
    assert result.output.count("2 heard") == 5


def test_texts_are_found_by_name_and_language(tmp_path: Path):
    (tmp_path / "t.txt").write_text("a: one: two\n; a comment\nb:\n", encoding="utf-8")
    assert evidence.read_texts(tmp_path / "t.txt") == {"a": "one: two", "b": ""}
