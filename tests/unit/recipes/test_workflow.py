import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.workflow import Step, run_steps

PROGRAM = """
import sys
from pathlib import Path
from recipes.workflow import Step, run_steps
from tests.unit.recipes.test_workflow import beat

if __name__ == "__main__":
    run_steps([Step("beat", beat, (sys.argv[1],))], sys.argv[2], num_workers=1)
"""


def note(name, folder):
    with (Path(folder) / "order").open("a") as file:
        file.write(name + "\n")


def fail(folder):
    raise ValueError("broken")


def beat(path):
    while True:
        Path(path).write_text(f"{os.getpid()} {time.monotonic()}")
        time.sleep(0.05)


@pytest.mark.slow
def test_steps_wait_for_what_they_need_and_run_once(tmp_path):
    steps = [
        Step("last", note, ("last", str(tmp_path)), needs=("first", "second")),
        Step("second", note, ("second", str(tmp_path)), needs=("first",)),
        Step("first", note, ("first", str(tmp_path))),
    ]
    times = run_steps(steps, tmp_path)
    assert (tmp_path / "order").read_text().split() == ["first", "second", "last"]
    assert set(times) == {"first", "second", "last"}
    assert run_steps(steps, tmp_path) == times
    assert (tmp_path / "order").read_text().split() == ["first", "second", "last"]


@pytest.mark.slow
def test_an_error_in_a_step_is_raised_and_the_step_is_not_noted(tmp_path):
    with pytest.raises(ValueError, match="broken"):
        run_steps([Step("fail", fail, (str(tmp_path),))], tmp_path, num_workers=1)
    assert not (tmp_path / "steps" / "fail.json").exists()


@pytest.mark.slow
def test_a_step_ends_when_its_recipe_is_killed(tmp_path):
    root = Path(__file__).parents[3]
    (tmp_path / "program.py").write_text(PROGRAM)
    pulse = tmp_path / "pulse"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    recipe = subprocess.Popen([sys.executable, tmp_path / "program.py", pulse, tmp_path], env=environment)
    try:
        wait_until(pulse.exists, 120)
    finally:
        os.kill(recipe.pid, signal.SIGKILL)
        recipe.wait()
    worker = int(pulse.read_text().split()[0])
    wait_until(lambda: not Path(f"/proc/{worker}").exists() or "Z" in status(worker), 30)


def status(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2]
    except OSError:
        return "Z"


def wait_until(is_true, seconds):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
