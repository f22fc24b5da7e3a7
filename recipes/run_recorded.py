"""Real input, from corpora to a model that listens: prepare, learn codes, tokenize, train in stages, measure.

    python -m recipes.run_recorded recipes/recorded_small/config.yaml out=runs/recorded_small
    speechllm train recorded recipes/recorded_small/config.yaml out=runs/recorded_small

Each step is noted when it is done and not run again; one that was stopped continues (workflow.py). `out` then holds
corpora/, semantic/, tokens/, text_lm/, sound/, stages/ (a checkpoint each; the last is the result), reports/ and
results.json. What a config leaves out (`base`, `sound`, `evaluation`) says which of them are there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.kept_config import remember_config
from recipes.recorded_steps import (
    RecordedConfig,
    evaluate,
    finish,
    fit_codes,
    fit_sound,
    measure,
    prepare,
    stage_folder,
    tokenize,
    train,
    train_text_lm,
)
from recipes.workflow import Step, run_steps
from speechllm.config import load_config


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Run the recipe of a config file; returns the folder of the checkpoint."""
    config = load_config(RecordedConfig, config_path, overrides)
    remember_config(config, config.out)
    return run_recorded(config)


def run_recorded(config: RecordedConfig) -> Path:
    """Run every step that is not done yet and return the folder of the last stage's checkpoint."""
    steps = [] if config.data_from is not None else data_steps(config)
    needs = tuple(step.name for step in steps if step.name.startswith("prepare-"))
    steps += [Step("text-lm", train_text_lm, (config,), needs=needs)] if config.base is None else []
    if config.sound is not None:
        needs = tuple(step.name for step in steps if step.name == f"tokenize-{config.sound.corpus}")
        steps.append(Step("sound", fit_sound, (config,), needs=needs))
    times = run_steps(steps, config.out, num_workers=config.num_workers)
    # From here on one step after the other, with all cores: each needs the one before.
    last: str | None = None
    for name in config.stages:
        times |= run_steps([Step(name, train, (config, name, last))], config.out, num_workers=1)
        last = name
    assert last is not None, "checked on construction"
    scores = [Step(f"evaluate-{corpus}", evaluate, (config, corpus, last)) for corpus in config.evaluation]
    times |= run_steps([Step("measure", measure, (config, last)), *scores], config.out, num_workers=1)
    finish(config, times)
    return stage_folder(config, last)


def data_steps(config: RecordedConfig) -> list[Step]:
    """Return the steps from corpora to tokens."""
    prepared = tuple(f"prepare-{name}" for name in config.corpora)
    steps = [Step(f"prepare-{name}", prepare, (config, name)) for name in config.corpora]
    steps += [Step("semantic", fit_codes, (config,), needs=prepared)]
    return steps + [Step(f"tokenize-{name}", tokenize, (config, name), needs=("semantic",)) for name in config.corpora]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
