"""The two tiny runs of the demo, their summary and their page."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from mmrl.config import UserError, apply_overrides, read_yaml
from mmrl.data.files import json_text
from mmrl.report.page import write_report
from mmrl.train.loop import load_config, start
from mmrl.train.run_folder import is_run

CONFIGS = {"video": "configs/sage_grpo/tiny.yaml", "vlm": "configs/med_r1/tiny.yaml"}
CHANGES = {"video": ["train.steps=24", "train.optimizer.lr=2.0e-4"], "vlm": []}
"""Longer and slower than the tiny config: three seeds then agree to 0.01 in reward, not to 0.1."""


def run_demo(output: Path, seed: int) -> Path:
    """Train both, evaluate before and after; returns the page. Replaces an earlier demo."""
    missing = [path for path in CONFIGS.values() if not Path(path).is_file()]
    if missing:
        raise UserError(f"no {missing[0]} here: run the demo in the project's own folder")
    configs = {
        name: load_config(
            apply_overrides(
                read_yaml(Path(path)),
                [*CHANGES[name], f"output={output / name}", f"train.seed={seed}"],
            )
        )
        for name, path in CONFIGS.items()
    }
    summary = {}
    for name, config in configs.items():
        if is_run(output / name):
            shutil.rmtree(output / name)
        began = time.perf_counter()
        outcome = start(config)
        if outcome.stopped:
            raise UserError(f"stopped by a signal; `mmrl resume {outcome.run}` continues")
        seconds = time.perf_counter() - began
        summary[name] = summarize_run(output / name, outcome.step, seconds)
    (output / "summary.json").write_text(json_text(summary, 1), encoding="utf-8")
    page = output / "report.html"
    write_report(output, page)
    return page


def summarize_run(run: Path, steps: int, seconds: float) -> dict[str, Any]:
    """The trained reward before and after, and every other metric, without the single values."""
    found = json.loads((run / "evaluation.json").read_text("utf-8"))
    before, after = (_bare(found[when]) for when in ("before", "after"))
    return {
        "before": before["reward"],
        "after": after["reward"],
        "metrics": {name: {"before": before[name], "after": after[name]} for name in before},
        "watched": {
            name: {"before": before[name], "after": after[name]} for name in found["watched"]
        },
        "steps": steps,
        "seconds": round(seconds, 1),
    }


def _bare(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in found.items() if key != "values"}
        for name, found in metrics.items()
    }
