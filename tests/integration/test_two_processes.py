"""Training on two processes: none waits for ever, all end with one model, and one of them writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "tests.support.two_processes", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, timeout=120, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_a_time_limit_stops_both_at_the_same_step(results):
    assert [result["clock"] for result in results] == [1, 1]


@pytest.mark.parametrize("codes", ["free", "tied"])
def test_soundstorm_trains_with_parameters_that_a_step_does_not_use(results, codes):
    assert [result[codes] for result in results] == [3, 3]


def test_both_have_the_codec_that_was_saved(results):
    fingerprints = {fingerprint for result in results for fingerprint in result["codec"]}
    assert len(fingerprints) == 1


def test_the_first_alone_removes_what_a_kill_left(results):
    first, second = (result["resumed"] for result in results)
    assert (first[0], second[0]) == (["checkpoint-5"], [])
    assert first[1:] == [2, first[2]] == second[1:]
