import json
import math

import pytest
import yaml

from recipes.sweep import SCORES_FILE, SweepConfig, main, merged
from speechllm.config import VERSION_KEY, load_config
from speechllm.errors import ConfigError
from tests.unit.training.test_unified import write_recipe


def write_sweep(tmp_path, **changes):
    base = yaml.safe_load(write_recipe(tmp_path, max_steps=2).read_text()) | {"out": str(tmp_path / "sweep")}
    base.pop(VERSION_KEY)
    data = {
        "base": base,
        "variants": {"zeros": {"row_init": "zeros"}, "slow": {"optimizer": {"learning_rate": 1e-5}}},
        "held_out": {"split": "train", "num_examples": 6},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(data | changes))
    return tmp_path / "sweep.yaml"


def test_sections_are_changed_key_by_key_and_lists_as_a_whole():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert merged(base, {"a": {"y": [4]}, "c": 5}) == {"a": {"x": 1, "y": [4]}, "b": 3, "c": 5}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


def test_variants_are_scored_alike_finished_ones_kept_and_seeds_added(tmp_path, capsys):
    path = write_sweep(tmp_path)
    first = main(path)
    assert set(first) == {"zeros", "slow"}
    assert list(first["zeros"]) == ["text loss before", "audio loss before", "text loss after", "audio loss after"]
    assert all(math.isfinite(value) for scores in first.values() for pair in scores.values() for value in pair)
    assert first["zeros"]["audio loss before"] != first["slow"]["audio loss before"], "the rows start elsewhere"
    assert "1 seed(s) each" in capsys.readouterr().out
    files = {file.parent.name: file for file in (tmp_path / "sweep").glob(f"*/{SCORES_FILE}")}
    assert set(files) == {"zeros-0", "slow-0"}
    assert not (tmp_path / "sweep" / "zeros-0" / "checkpoint").exists()
    when = {name: file.stat().st_mtime_ns for name, file in files.items()}
    assert main(path) == first
    second = main(path, ["seeds=[0, 1]"])
    assert second["zeros"]["text loss after"][1] > 0, "seeds differ"
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == when
    table = (tmp_path / "sweep" / "table.md").read_text().splitlines()
    assert table[0].startswith("| variant | text loss before |")
    assert len(table) == 4
    with pytest.raises(ConfigError, match=r"-0 was made with train\.training\.max_steps = 2, the config has 3"):
        main(path, ["base.training.max_steps=3"])


def test_decoding_is_scored_for_the_tasks_of_each_variant(tmp_path):
    folder = str(tmp_path / "tokens")
    variants = {
        "ASR": {"mixture": {"components": [{"tasks": "ASR", "folder": folder}]}},
        "AST": {"mixture": {"components": [{"tasks": "AST", "folder": folder}]}},
    }
    settings = {
        "splits": ["train"], "tasks": ["ASR", "AST"], "directions": ["en", "en-fr"], "num_items": 2, "num_samples": 0,
        "judge": {"english": "none"}, "decoding": {"max_text_tokens": 4}, "with_shuffled_audio": False,
        "speaker_embedder": "none",
    }  # fmt: skip
    evaluation = {"corpora": [str(tmp_path / "corpus")], "settings": settings}
    summary = main(write_sweep(tmp_path, variants=variants, evaluation=evaluation))
    assert "[ASR] transcript WER" in summary["ASR"]
    assert "[AST] translation BLEU" in summary["AST"]
    assert "[AST] translation BLEU" not in summary["ASR"]
    scores = json.loads((tmp_path / "sweep" / "ASR-0" / SCORES_FILE).read_text())
    assert scores["[ASR] transcript WER"] == summary["ASR"]["[ASR] transcript WER"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {}}, "at least one each"),
        ({"variants": {"x": {"row_inti": "zeros"}}}, "variant x: unknown key 'row_inti'"),
        ({"variants": {"a/b": {}}}, "name of a folder"),
        ({"held_out": {"num_examples": 0}}, "num_examples = 0"),
    ],
)
def test_mistakes_are_found_before_the_first_run(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config(SweepConfig, write_sweep(tmp_path, **changes))
