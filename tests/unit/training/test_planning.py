"""Plans: the arithmetic by hand, sources for all inputs, and pages that say what the program says."""

from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.planning_page import TABLE, up_to_date
from speechllm.cli.main import app
from speechllm.training.planning import PlanConfig, describe_inputs, number, plan_corpus, plan_table, varied

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "docs" / "planning.md", *sorted((ROOT / "recipes").glob("*/README.md"))]


def test_a_plan_by_hand():
    plan = plan_corpus(
        PlanConfig(
            hours=1000.0, utterance_seconds=3.6, source_kbps=80.0, flac_bytes_per_second=10_000.0,
            records_per_shard=1000, frame_rate=25.0, bytes_per_code=2.0, bytes_per_unpacked_row=1000.0,
            bytes_per_row_in_memory=1.0, codes_per_text_token=5.0, texts_per_use=2.5, uses=2.0,
            encoder_parameters=1e9, encoder_rate=50.0,
            encoder_utilisation=0.1, model_parameters=1e9, recompute=False, mfu=0.5, num_gpus=10, peak_tflops=1000.0,
            dollars_per_gpu_hour=2.0, dollars_per_tb_month=10.0, months=2.0,
        )
    )  # fmt: skip
    tokens = 3.6e6 * 25 * (1 + 2.5 / 5) * 2
    tokenise, train = 3.6e6 * 50 * 2e9 / 1e14 / 3600, tokens * 6e9 / 5e14 / 3600
    expected = {
        "utterances, millions": 1.0,
        "shards of tokens": 1000,
        "downloads, TB": 0.036,
        "prepared speech, TB": 0.036,
        "codes, billions": 0.09,
        "token shards, GB": 0.18,
        "rows unpacked on each training machine, GB": 1.0,
        "rows in memory of each training process, MB": 1.0,
        "tokenise, hours of speech in a GPU hour": 1000.0,
        "tokenise, GPU hours": 1.0,
        "tokens trained on, billions": 0.27,
        "train, tokens a second and GPU": 5e14 / 6e9,
        "train, GPU hours": 0.9,
        "days on all GPUs": 1.9 / 240,
        "GPUs, dollars": 3.8,
        "storage, dollars": 0.03618 * 20,
        "dollars for an hour of speech": (3.8 + 0.7236) / 1000,
    }
    assert (tokenise, train) == pytest.approx((1.0, 0.9))
    assert plan == pytest.approx(expected)


def test_cost_grows_with_hours_and_model_alone():
    base, twice = (plan_corpus(c) for c in varied(PlanConfig(), "hours", [1000.0, 2000.0]))
    assert twice["train, GPU hours"] == pytest.approx(2 * base["train, GPU hours"])
    assert twice["dollars for an hour of speech"] == pytest.approx(base["dollars for an hour of speech"])
    small, large = (plan_corpus(c) for c in varied(PlanConfig(), "model_parameters", [1e9, 8e9]))
    assert large["train, GPU hours"] == pytest.approx(8 * small["train, GPU hours"])
    assert large["tokenise, GPU hours"] == small["tokenise, GPU hours"]


@pytest.mark.parametrize("one", fields(PlanConfig), ids=lambda one: one.name)
def test_every_input_names_its_source(one):
    source = one.metadata["source"]
    known = ("assumption", "arXiv:", "openslr.org", "measured: ", "data sheet", "Qwen3-8B")
    assert any(word in source for word in known), source
    assert one.metadata["meaning"]


def test_what_is_given_is_not_shown_as_a_default():
    assert "| `hours` | 10 | speech, hours | given |" in describe_inputs(PlanConfig(hours=10.0))


@pytest.mark.parametrize(
    ("value", "text"), [(0.0501, "0.0501"), (3.0, "3"), (1234.5, "1,234"), (8.2e9, "8.2e9"), (True, "yes")]
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hours=0"], "hours = 0.0, expected a number above 0"),
        (["mfu=40"], "mfu = 40.0, expected a share"),
        (["huors=1"], "unknown key 'huors'; did you mean 'hours'?"),
        (["--vary", "hours=many"], "not of the form key=number,number"),
        (["--vary", "num_gpus=1.5"], "num_gpus = 1.5"),
        (["--vary", "days=1"], "unknown key 'days'"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_columns_are_the_plans_of_each_value():
    table = plan_table(PlanConfig(), "num_gpus", [8.0, 16.0]).splitlines()
    assert table[0] == "|  | num_gpus = 8 | num_gpus = 16 |"
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_pages_say_what_the_program_says(page):
    text = page.read_text(encoding="utf-8")
    assert up_to_date(text) == text, f"python -m benchmarks.planning_page {page.relative_to(ROOT)}"
    assert page.name != "planning.md" or len(TABLE.findall(text)) == 4
