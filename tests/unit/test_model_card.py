import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from speechllm.errors import DataError
from speechllm.evaluation.report import write_report
from speechllm.evaluation.results import MODEL, Measurement
from speechllm.model_card import CardInfo, model_card, write_model_card
from speechllm.tasks import TrainedFor
from tests.support.tiny_report import WER, tiny_report

INFO = CardInfo(model_name="tiny", license="apache-2.0", data="Nothing at all.", base_model="someone/llm")


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    write_report(tiny_report(), tmp_path)
    return ModelCard.load(write_model_card(tmp_path / "report.json", INFO, tmp_path / "README.md"))


def test_the_hub_reads_the_scores_back(card: ModelCard):
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_config) == ("wer", 12.35, "en")
    assert (card.data.license, card.data.base_model, card.data.language) == ("apache-2.0", "someone/llm", ["en", "fr"])


def test_languages_are_those_of_the_training_unless_they_are_named():
    trained = TrainedFor(tasks={"ASR": ("de", "en"), "AST": ("de-es",)}, longest_seconds=4.25)
    card = ModelCard(model_card(dataclasses.asdict(tiny_report()), INFO, trained=trained))
    assert card.data.language == ["de", "en", "es"]
    assert "of the training: ASR (de, en), AST (de-es). The longest speech in it has 4.2 s" in card.text
    named = dataclasses.replace(INFO, languages=("de",))
    assert ModelCard(model_card(dataclasses.asdict(tiny_report()), named, trained=trained)).data.language == ["de"]


def test_what_was_not_measured_has_no_number(card: ModelCard):
    assert "not measured" in card.text
    assert "Not measured: not judged: no recogniser" in card.text


def test_tables_limits_signatures_and_command_are_there(card: ModelCard):
    for part in ("12.3 [10.0, 15.0] (n 9, 1 failed)", "- small", "`jiwer|x`", "speechllm evaluate x", "watermark"):
        assert part in card.text


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_page_and_card_name_the_confidence_of_their_intervals(level: float, tmp_path: Path):
    config = {"seed": 0, "bootstrap": {"confidence": level}}
    page = write_report(dataclasses.replace(tiny_report(), config=config), tmp_path)
    card = write_model_card(tmp_path / "report.json", INFO, tmp_path / "README.md")
    assert f"its {100 * level:g} % bootstrap interval" in page.read_text()
    assert f"{100 * level:g} % bootstrap interval" in card.read_text()


def test_cer_stands_for_transcripts_without_blanks(tmp_path: Path):
    cer = dataclasses.replace(WER, name="CER")
    chinese = Measurement(split="test", task="ASR", direction="zh", output="transcript", system=MODEL, score=cer)
    page = write_report(dataclasses.replace(tiny_report(), measurements=[chinese]), tmp_path).read_text()
    card = ModelCard.load(write_model_card(tmp_path / "report.json", INFO, tmp_path / "README.md"))
    assert [result.metric_type for result in card.data.eval_results] == ["cer"]
    assert "bar chart of scores" in page, "only headlines are drawn"


def test_the_page_escapes_what_comes_from_data(tmp_path: Path):
    page = write_report(tiny_report(), tmp_path).read_text()
    assert "&lt;b&gt;t&lt;/b&gt;" in page
    assert "<b>t</b>" not in page


def test_no_report_no_card(tmp_path: Path):
    (tmp_path / "other.json").write_text("{}")
    for name in ("missing.json", "other.json"):
        with pytest.raises(DataError, match="no evaluation report"):
            write_model_card(tmp_path / name, INFO, tmp_path / "README.md")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report"):
        write_report(tiny_report(), tmp_path / "file" / "report")
