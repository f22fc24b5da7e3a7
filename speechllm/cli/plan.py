"""The command that reckons what a corpus will take: plan."""

from pathlib import Path
from typing import Annotated

import typer

from speechllm.cli.console import results
from speechllm.errors import ConfigError


def plan(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Inputs that differ: hours=10000, num_gpus=8.")
    ] = None,
    vary: Annotated[
        str | None, typer.Option(help="One input with several values, a column for each: hours=900,57100.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="YAML of `train unified`: its memory and time in the place of the corpus.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="For --train: folder with config.json of the base LM, or Hub id; else its own.")
    ] = None,
    show_inputs: Annotated[
        bool, typer.Option("--inputs", help="Print every input with its source instead of the plan.")
    ] = False,
) -> None:
    """Reckon shards, storage, GPU hours and dollars for a corpus of so many hours; or what a training needs.

    What is reckoned from, and where each number comes from, is said by --inputs.

    Example: speechllm plan hours=57100 num_gpus=64 --vary model_parameters=1.35e8,1.7e9,8.2e9
    """
    from speechllm.config import apply_overrides, build_config
    from speechllm.training.planning import PlanConfig, describe_inputs, plan_table

    config = build_config(PlanConfig, apply_overrides({}, inputs or []), where="plan")
    if show_inputs:
        results.print(describe_inputs(config))
        return
    if train is not None:
        from speechllm.config import load_config
        from speechllm.training.training_plan import training_table
        from speechllm.training.unified import UnifiedTrainConfig

        unified = load_config(UnifiedTrainConfig, train)
        results.print(training_table(unified, config, base or unified.model.source))
        return
    if vary is None:
        results.print(plan_table(config))
        return
    name, equals, values = vary.partition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError as error:
        raise ConfigError(f"--vary {vary!r} is not of the form key=number,number") from error
    results.print(plan_table(config, name, numbers))
