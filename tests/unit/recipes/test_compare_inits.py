import math

import pytest
import yaml

from recipes.compare_inits import NAMES, main
from speechllm.config import VERSION_KEY
from speechllm.errors import ConfigError
from tests.unit.training.test_unified import write_recipe


def test_inits_are_compared_on_the_same_examples_and_finished_ones_kept(tmp_path, capsys):
    train = yaml.safe_load(write_recipe(tmp_path, max_steps=2).read_text()) | {"out": str(tmp_path / "inits")}
    train.pop(VERSION_KEY)
    path = tmp_path / "compare.yaml"
    data = {"train": train, "inits": ["zeros", "centroid"], "seeds": [0, 1], "split": "train", "num_examples": 6}
    path.write_text(yaml.safe_dump(data))
    first = main(path)
    assert set(first) == {"zeros", "centroid"}
    assert all(math.isfinite(value) for scores in first.values() for pair in scores.values() for value in pair)
    assert list(first["zeros"]) == list(NAMES)
    assert "held-out loss in nats, 2 seed(s) each" in capsys.readouterr().out
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "inits").glob("*.json")}
    assert set(made) == {f"{init}-{seed}.json" for init in ("zeros", "centroid") for seed in (0, 1)}
    (tmp_path / "inits" / "zeros-1.json").unlink()
    assert main(path) == first
    assert (tmp_path / "inits" / "zeros-0.json").stat().st_mtime_ns == made["zeros-0.json"]
    with pytest.raises(ConfigError, match="has its new rows already"):
        main(path, ["train.start_from=x"])
