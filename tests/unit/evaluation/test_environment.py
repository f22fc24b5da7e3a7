"""What a report says of the machine it was made on."""

import pytest

from speechllm.evaluation.environment import command_line, describe_environment


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/home/me/.venv/bin/speechllm", "quickstart", "seed=1"], "speechllm quickstart seed=1"),
        (["/home/me/speechllm/cli/__main__.py", "evaluate", "runs/lm"], "speechllm evaluate runs/lm"),
        (["speechllm", "evaluate", "/home/me/lm", "--out", "/tmp/x y"], "speechllm evaluate lm --out 'x y'"),
        (["speechllm", "train", "unified", "c.yaml", "out=/home/me/lm"], "speechllm train unified c.yaml out=lm"),
    ],
)
def test_commands_name_no_private_folder(arguments, expected):
    assert command_line(arguments) == expected


def test_versions_are_those_installed():
    import torch

    assert describe_environment()["versions"]["torch"] == torch.__version__
