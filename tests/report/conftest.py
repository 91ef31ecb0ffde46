"""Two made-up runs, a video one and a text one, in the files a real run leaves."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmrl.data.video import encode_webp
from mmrl.evaluate.result import Result, Row, write_result

HOSTILE = "<img src=x onerror=alert(1)> & \"quoted\" 'prompt'"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `video` and `vlm`, and their summary."""
    folder = tmp_path_factory.mktemp("demo")
    write_steps(folder / "video", 80, ["clip_score", "smoothness"], ["periodic", "stepwise"])
    write_evaluation(folder / "video", {"clip_score": 0.2, "smoothness": -0.08}, ["smoothness"])
    write_videos(folder / "video" / "gallery")
    write_steps(folder / "vlm", 60, ["accuracy", "answer_format"], ["fixed"])
    write_evaluation(folder / "vlm", {"accuracy": 0.0, "answer_format": 0.4}, [])
    write_answers(folder / "vlm" / "gallery")
    for name, scale in (("vlm", 1.0), ("video", 0.5)):
        for when, gain in (("before", 0.0), ("after", 0.3)):
            write_slices(folder / name / "evaluations" / when, scale * (0.4 + gain))
    summary = {name: {"steps": 60, "seconds": 95.4} for name in ("video", "vlm")}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_steps(run: Path, count: int, rewards: list[str], anchors: list[str]) -> None:
    """metrics.jsonl, config.yaml and versions.json; step 7 has an unscored sample and a null."""
    run.mkdir(parents=True)
    draw = random.Random(run.name)
    rows = []
    for step in range(1, count + 1):
        row: dict[str, float | None] = {"step": step, "reward/std": 0.2, "lr": 3e-4}
        row["reward/mean"] = 0.4 + 0.4 * (1 - math.exp(-step / 25)) + draw.gauss(0, 0.03)
        for index, name in enumerate(rewards):
            row[f"rewards/{name}/mean"] = 0.3 + 0.3 * index + 0.003 * step + draw.gauss(0, 0.03)
            row[f"rewards/{name}/std"] = 0.15
            row[f"reward/{name}/missing"] = 3.0 if step == 7 and index == 0 else 0.0
        for index, name in enumerate(anchors):
            row[f"kl/{name}/denoise"] = 2e-4 * step / (1 + 5 * index) * (1 + draw.random())
            row[f"coefficient/{name}/denoise"] = 0.1 / (1 + index)
        row |= {"ratio": 1 + draw.gauss(0, 0.01), "ratio/deviation": abs(draw.gauss(0, 0.01))}
        row |= {"clip_fraction": 0.1 * draw.random(), "grad_norm": 1 + draw.random()}
        row |= {"time/rollout": 0.4, "time/reward": 0.1, "time/update": 0.9 + draw.random() / 9}
        rows.append(row | ({"kl/fixed/denoise": None} if step == 7 else {}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    method = "sage_grpo" if run.name == "video" else "med_r1"
    text = f"pipeline: {method}\noutput: runs/{run.name}\ntrain:\n  prompts_per_step: 16\n"
    (run / "config.yaml").write_text(text)
    (run / "versions.json").write_text(json.dumps({"python": "3.11.9", "torch": "2.11.0"}))


def write_evaluation(run: Path, gains: dict[str, float], watched: list[str]) -> None:
    """evaluation.json of 64 prompts whose metrics move by about `gains`."""
    draw = random.Random(run.name)
    trained = sum(gain for name, gain in gains.items() if name not in watched)
    before, after = {}, {}
    for name, gain in {**gains, "reward": trained}.items():
        old = [0.4 + draw.gauss(0, 0.1) for _ in range(64)]
        new = [value + gain + draw.gauss(0, 0.05) for value in old]
        before[name], after[name] = _summary(old), _summary(new)
    tree = {"before": before, "after": after, "trained": "reward", "watched": watched}
    (run / "evaluation.json").write_text(json.dumps(tree | {"level": 0.95}))


def write_slices(folder: Path, share: float) -> None:
    """A full evaluation of 40 answers of two modalities, `share` of them right, all 0.8 sure."""
    rows = [
        Row(
            prompt=HOSTILE,
            group=index,
            seed=index,
            scores={"accuracy": float(index % 20 < 20 * share)},
            metadata={"modality": "X-ray" if index < 20 else "<MRI>"},
            confidence=0.8,
        )
        for index in range(40)
    ]
    write_result(folder, Result({"weights": folder.name}, {"accuracy": {}}, rows))


def write_videos(gallery: Path) -> None:
    """Six pairs of a moving square, blurred before and clear after."""
    gallery.mkdir(parents=True)
    prompts = ["a red square moving right", "a green square moving down", HOSTILE] * 2
    entries = []
    for number, prompt in enumerate(prompts):
        entry = {"prompt": prompt, "seed": 1234 + number, "kind": "video"}
        for when, faint in (("before", 0.3), ("after", 1.0)):
            video = torch.full((8, 3, 32, 32), 0.12)
            for frame in range(8):
                video[frame, number % 3, 10:20, 2 * frame : 2 * frame + 10] = faint
            (gallery / f"{number}_{when}.webp").write_bytes(encode_webp(video, fps=8))
            entry[when] = f"{number}_{when}.webp"
            entry[f"scores_{when}"] = {"reward": faint}
        entries.append(entry)
    (gallery / "index.json").write_text(json.dumps(entries))


def write_answers(gallery: Path) -> None:
    """Four pictures with an answer before and after."""
    gallery.mkdir(parents=True)
    entries = []
    for number in range(4):
        Image.radial_gradient("L").resize((512, 448)).save(gallery / f"{number}.png")
        entries.append(
            {
                "prompt": "Which finding does this chest X-ray show?\nA) normal\nB) pneumonia",
                "seed": 5,
                "kind": "text",
                "image": f"{number}.png",
                "before": "B <script>alert(1)</script>",
                "after": "<think>one lung is white</think><answer>B</answer>",
                "answer": "B" if number < 3 else "A",
                "scores_before": {"reward": 0.0},
                "scores_after": {"reward": None},
            }
        )
    (gallery / "index.json").write_text(json.dumps(entries))


def _summary(values: list[float]) -> dict[str, object]:
    mean = sum(values) / len(values)
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values)) / len(values)
    low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "n": len(values), "values": values}
