"""The card of a listening recipe holds the measured scores, and nothing that was not measured."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from recipes.listening_card import listening_report
from speechllm.config import load_config
from speechllm.errors import DataError
from speechllm.model_card import CardInfo, model_card

ROOT = Path(__file__).parents[3]
SCORE = {
    "name": "WER", "value": 80.9523, "unit": "%", "num_scored": 30, "num_failed": 0, "signature": "jiwer|x",
    "higher_is_better": False, "interval": [69.3, 99.0], "reason": "",
}  # fmt: skip
RESULTS = {
    "tests": [
        {"name": "recorded-en", "real": SCORE, "characters": {**SCORE, "name": "CER"}, "label_source": "human",
         "shuffled": {**SCORE, "value": 144.8}, "ceiling": {**SCORE, "value": 9.5}},
        {"name": "recorded-fr", "real": {**SCORE, "value": 70.0}, "characters": {**SCORE, "name": "CER"},
         "label_source": "pseudo", "shuffled": SCORE, "ceiling": None},
    ],
    "text_perplexity": {"before": 37.6, "after": 898.5},
}  # fmt: skip
ENVIRONMENT = {"command": "python -m x", "time": "now", "machine": "here", "versions": {"torch": "2"}}


def test_scores_floor_and_ceiling():
    info = load_config(CardInfo, ROOT / "model_cards" / "recorded_small.yaml")
    card = ModelCard(model_card(listening_report(RESULTS, ENVIRONMENT), info))
    found = {(r.dataset_config, r.dataset_split): r.metric_value for r in card.data.eval_results or []}
    assert found == {("en", "recorded-en"): 80.95, ("fr", "recorded-fr"): 70.0}
    for part in ("144.8", "9.5", "recorded-fr: the references were written by Whisper-base", "from 38 to 898",
                 "python -m x", "CC BY-SA 3.0"):  # fmt: skip
        assert part in card.text


def test_other_results_are_refused():
    with pytest.raises(DataError, match="none of listening tests"):
        listening_report({"steps": {}}, ENVIRONMENT)


@pytest.mark.parametrize(
    ("name", "model", "languages"),
    [
        ("recorded_small", "recorded_small", {"en", "fr", "es"}),
        ("smollm2_whisper", "smollm2_whisper_cpu", {"en", "fr", "fr-en"}),
    ],
)
def test_the_cards_that_lie_here_are_of_this_form(name, model, languages):
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    assert card.data.model_name == model
    assert {r.dataset_config for r in card.data.eval_results or []} == languages


def test_page_card_and_expected_figures_of_the_run_agree():
    expected = json.loads((ROOT / "recipes" / "smollm2_whisper" / "expected.json").read_text(encoding="utf-8"))
    page = (ROOT / "benchmarks" / "results" / "smollm2_whisper.md").read_text(encoding="utf-8")
    card = (ROOT / "model_cards" / "smollm2_whisper.md").read_text(encoding="utf-8")
    assert expected["command"] in page
    assert expected["command"] in card
    for found in expected["tests"].values():
        assert f"| {found['real']} | {found['shuffled']} | {found['gain']} |" in page
        assert found["real"] in card
    for figures in expected["reports"].values():
        for name, figure in figures.items():
            assert figure in card, name
            assert figure in page or "chrF" in name or "similarity" in name, name
