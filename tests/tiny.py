"""The two tiny runs that tests share: real models of assets/, a few seconds on one core."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmrl.config import apply_overrides, read_yaml
from mmrl.data.video import encode_webp

ROOT = Path(__file__).parent.parent
TRUST_REGION = {
    "periodic": {
        "refresh_every": 3,
        "coefficient": {
            "kind": "proportional",
            "initial": 0.01,
            "target": 1e-6,
            "horizon": 16,
            "maximum": 1.0,
        },
    },
    "stepwise": {"coefficient": 0.001},
}
"""Moves in the middle of a rollout, and adapts at every optimizer step."""
CLICK = {
    "action_type": "Click",
    "is_grounding": True,
    **{"bbox_x1": 20, "bbox_y1": 30, "bbox_x2": 90, "bbox_y2": 60},
    **{"width": 112, "height": 112},
}
"""A recorded action, so that GUI methods can use the pictures too."""


def train_section(steps: int, **changes: Any) -> dict[str, Any]:
    """Two prompts, two updates a rollout, a checkpoint every second step."""
    section = {
        "steps": steps,
        "prompts_per_step": 2,
        "rows": 4,
        "updates_per_rollout": 2,
        "optimizer": {"lr": 1e-3},
        "save_every": 2,
    }
    return {**section, **changes}


def video_config(output: Path, steps: int = 2, **train: Any) -> dict[str, Any]:
    """sage_grpo on tiny-wan with the rewards that need no model."""
    return {
        "pipeline": "sage_grpo",
        "output": str(output),
        "model": str(ROOT / "assets/tiny-wan"),
        "prompts": str(ROOT / "assets/prompts/digits_train.jsonl"),
        "group_size": 2,
        "video": {"num_frames": 5, "height": 16, "width": 16, "max_sequence_length": 8},
        "sampling": {
            "transition": "sage",
            "num_steps": 4,
            "eta": 0.5,
            "shift": 3.0,
            "trained_steps": "random",
            "trained_count": 2,
        },
        "clip": 1e-3,
        "rewards": {"motion_direction": {"weight": 1.0}, "smoothness": {"weight": 0.5}},
        "trust_region": deepcopy(TRUST_REGION),
        "train": train_section(steps, **train),
    }


def vlm_config(output: Path, data: Path, steps: int = 2, **train: Any) -> dict[str, Any]:
    """med_r1 on tiny-qwen2_5_vl with drawn pictures."""
    return {
        "pipeline": "med_r1",
        "output": str(output),
        "model": str(ROOT / "assets/tiny-qwen2_5_vl"),
        "prompts": str(write_pictures(data)),
        "group_size": 2,
        "max_new_tokens": 12,
        "rewards": {"accuracy": {"weight": 1.0}, "answer_format": {"weight": 0.5}},
        "trust_region": deepcopy(TRUST_REGION),
        "train": train_section(steps, **train),
    }


def shrunk_config(name: str, folder: Path, *changes: str) -> dict[str, Any]:
    """configs/<name>/tiny.yaml as one step of two prompts, two samples each."""
    tree = read_yaml(ROOT / "configs" / name / "tiny.yaml")
    overrides = [
        f"output={folder / 'run'}",
        "group_size=2",
        "evaluate=null",
        *("train.steps=1", "train.prompts_per_step=2", "train.rows=4", "train.save_every=1"),
    ]
    if "sampling" not in tree:
        overrides.append(f"prompts={write_pictures(folder / 'data')}")
        return apply_overrides(tree, [*overrides, *changes])
    overrides += ["video.num_frames=5", "video.height=16", "video.width=16", "sampling.num_steps=4"]
    if "trained_count" in tree["sampling"]:
        overrides.append("sampling.trained_count=2")
    if name == "diffusion_dpo":
        overrides.append(f"prompts={write_pairs(folder / 'data')}")
    return apply_overrides(tree, [*overrides, *changes])


def write_pairs(folder: Path, count: int = 2, frames: int = 5, side: int = 16) -> Path:
    """A square that moves right, and noise, as pairs of recorded videos in a prompt file."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    lines = []
    for index in range(count):
        moving = torch.zeros(frames, 3, side, side)
        for frame in range(frames):
            moving[frame, index % 3, 4:8, frame : frame + 4] = 1.0
        noise = torch.rand(frames, 3, side, side, generator=generator)
        names = [f"{index}_{word}.webp" for word in ("preferred", "rejected")]
        for name, video in zip(names, (moving, noise), strict=True):
            (folder / name).write_bytes(encode_webp(video, fps=8))
        lines.append(json.dumps({"text": "a red zero moving right", "videos": names}))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Grey pictures of noise with a question each, as a prompt file."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    lines = []
    for index in range(count):
        pixels = torch.randint(256, (112, 112), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
        lines.append(
            json.dumps(
                {
                    "text": "What does this chest X-ray show? A) normal, B) pneumonia",
                    "images": [f"{index}.png"],
                    "answer": "AB"[index % 2],
                    "metadata": CLICK,
                }
            )
        )
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
