"""Seconds and memory of a whole GRPO step, ours and TRL's: `python -m benchmarks.vlm_step FOLDER`.

Qwen2-VL of 37 M parameters with random weights, all of them learn; one picture a step, G answers of
64 tokens, float32. A step is sampling, rewards, replay, backward pass and AdamW. Ours is the
pipeline `grpo`, TRL's its GRPOTrainer (`pip install trl`), each a process of its own, the two in
turn for every cell of the grid. Writes FOLDER/results.json and FOLDER/vlm_step.svg, prints the
table of docs/performance.md; cells that are there already are kept. Seconds are CPU seconds of the
process, wall-clock on a GPU; memory is its peak, and how far that is above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from benchmarks import vlm_peer
from benchmarks.figures import save_lines
from benchmarks.vlm_peer import build, clock, trl_seconds
from mmrl.report.plots import Series
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.step import train_step
from mmrl.types import Prompt

NEW_TOKENS = 64
GROUPS = (4, 8, 16)
SIDES = {256: 448, 1024: 896}
"""Pixels of the square picture by its image tokens."""
WAYS = ("mmrl", "trl")


def main() -> None:
    """Measure what is missing, then print the table; with --one, one cell as a line of JSON."""
    parser = argparse.ArgumentParser(description="Time whole VLM steps.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=1, help="steps that count, after two more")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "GROUP", "TOKENS"))
    arguments = parser.parse_args()
    if arguments.one:
        way, group, tokens = arguments.one
        print(json.dumps(measure(way, int(group), int(tokens), arguments.steps)))
        return
    if arguments.folder is None:
        parser.error("FOLDER is missing")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for tokens, group, way in product(SIDES, GROUPS, WAYS):
        name = f"{way} {group} {tokens}"
        if name not in results:
            results[name] = in_own_process(way, group, tokens, arguments.steps)
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    print_table(results)
    save_figure(results, arguments.folder / "vlm_step.svg")


def in_own_process(way: str, group: int, tokens: int, steps: int) -> dict[str, float]:
    """One cell, so that no way inherits the other's memory."""
    command = [sys.executable, "-m", "benchmarks.vlm_step", "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--one", way, str(group), str(tokens)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{way}, G = {group}, {tokens} tokens: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, group: int, tokens: int, steps: int) -> dict[str, float]:
    """Median seconds of a step, peak bytes of the process, and those above the loaded model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, prompt = build(folder, SIDES[tokens])
        model.save_pretrained(folder / "model")
        before = psutil.Process(os.getpid()).memory_info().rss
        if way == "trl":
            seconds = trl_seconds(model, prompt, group, NEW_TOKENS, steps, folder)
        else:
            del model  # the pipeline loads its own
            seconds = our_seconds(prompt, group, steps, folder)
    peak = peak_bytes()
    return {"seconds": statistics.median(seconds), "peak": peak, "step": peak - before}


def peak_bytes() -> int:
    """The most memory so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def our_seconds(prompt: Prompt, group: int, steps: int, folder: Path) -> list[float]:
    """Seconds of every step of the pipeline `grpo`, after two to warm up, as with TRL."""
    line = {"text": prompt.text, "images": [str(path) for path in prompt.images]}
    (folder / "prompts.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    config = load_config(
        {
            "pipeline": "grpo",
            "output": str(folder / "run"),
            "model": str(folder / "model"),
            "prompts": str(folder / "prompts.jsonl"),
            "group_size": group,
            "max_new_tokens": NEW_TOKENS,
            "rewards": {"varied": {"path": f"{vlm_peer.__file__}:varied"}},
            "train": {
                "steps": steps + 2,
                "prompts_per_step": 1,
                "rows": group,
                "optimizer": {"lr": 1e-6},
            },
        }
    )
    recipe = config.build()
    accelerator = Accelerator()
    recipe.policy.to(accelerator.device)
    state, ranks = initial_state(recipe, config.train), Ranks(accelerator)
    seconds = []
    for step in range(steps + 2):
        began = clock()
        metrics = train_step(recipe, state, config.train, ranks)
        if step > 1:
            seconds.append(clock() - began)
        assert metrics["grad_norm"] > 0, "a step without a gradient proves nothing"
    return seconds


def print_table(results: dict[str, dict[str, float]]) -> None:
    """A row for every picture size and group."""
    print("image tokens   G   mmrl s    TRL s  ratio   mmrl MB   TRL MB  ratio   above the model")
    for tokens, group in product(SIDES, GROUPS):
        ours, theirs = (results[f"{way} {group} {tokens}"] for way in WAYS)
        print(
            f"{tokens:12d} {group:3d} {ours['seconds']:8.2f} {theirs['seconds']:8.2f} "
            f"{theirs['seconds'] / ours['seconds']:6.1f} {ours['peak'] / 1e6:9.0f} "
            f"{theirs['peak'] / 1e6:8.0f} {ours['peak'] / theirs['peak']:6.2f} "
            f"{ours['step'] / theirs['step']:6.2f}"
        )


def save_figure(results: dict[str, dict[str, float]], path: Path) -> None:
    """Seconds of a step against G, a line for every picture size and way."""
    series = [
        Series(
            f"{way}, {tokens} image tokens",
            list(GROUPS),
            [results[f"{way} {group} {tokens}"]["seconds"] for group in GROUPS],
        )
        for tokens, way in product(SIDES, WAYS)
    ]
    save_lines(path, "CPU seconds of a step", series, "answers to a prompt")


if __name__ == "__main__":
    main()
