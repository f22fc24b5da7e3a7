"""The quickstart: from nothing to a speech LM with a report, on a laptop, offline.

    speechllm quickstart --out runs/quickstart

    corpus -+- codec -------------------+
            +- text_lm ------+          +- acoustic -+
            +- encoder - tokens --------+            +- checkpoint - report
                             +- lm ------------------+

A grammar's sentences in two languages, spoken by a small synthesiser; an encoder trained with CTC and cut into
codes; a small text LM extended by those codes and trained on tagged tasks; a codec and a SoundStorm to speak;
an evaluation by a recogniser that saw none of it. It is the way of a real model, with everything small.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from recipes.kept_config import remember_config
from recipes.quickstart import steps
from recipes.quickstart.config import CONFIG, QuickstartConfig
from recipes.workflow import Step, run_steps
from speechllm.config import load_config


def run(
    config_path: str | Path | None = None, overrides: Sequence[str] = (), out: str | Path = "runs/quickstart"
) -> Path:
    """Run all steps that are not done yet and return the path of the report.

    Called like every recipe (`speechllm train quickstart CONFIG`), it works in its usual folder.

    Raises:
        ConfigError: the folder holds a run of another config.
    """
    out = Path(out)
    config = load_config(QuickstartConfig, config_path or CONFIG, overrides)
    remember_config(config, out)
    started, work = time.perf_counter(), (config, out)
    in_one_go = not (out / "steps").exists()
    run_steps([Step("corpus", steps.speak_corpus, work)], out, num_workers=1)
    run_steps(
        [
            Step("encoder", steps.train_encoder, work),
            Step("codec", steps.fit_codec, work),
            Step("text_lm", steps.train_text_lm, work),
        ],
        out,
    )
    run_steps([Step("tokens", steps.make_tokens, work)], out, num_workers=1)
    run_steps([Step("lm", steps.train_lm, work), Step("acoustic", steps.train_acoustic, work)], out)
    last = [
        Step("checkpoint", steps.join_checkpoint, work),
        Step("report", steps.write_the_report, work, needs=("checkpoint",)),
    ]
    run_steps(last, out, num_workers=1)
    if in_one_go:
        note_total(out, time.perf_counter() - started)
    return out / "report" / "report.html"


def note_total(out: Path, wall_seconds: float) -> None:
    """Keep what the whole took; a run that was interrupted has no such figure."""
    total = json.dumps({"wall_seconds": round(wall_seconds, 1)})
    (out / "steps" / "total.json").write_text(total + "\n", encoding="utf-8")
