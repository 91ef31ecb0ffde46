"""Score a policy on held-out prompts, and keep some of what it made."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor, nn

from mmrl.data.files import json_text
from mmrl.data.images import load_image
from mmrl.data.prompts import load_prompts
from mmrl.data.video import encode_webp
from mmrl.evaluate.files import describe
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.result import Result, write_result
from mmrl.evaluate.row import Row, pictures_hash, prompt_set
from mmrl.recipe import EvaluateConfig, Recipe
from mmrl.types import Prompt, Sample, TextSample, VideoSample

LEVEL = 0.95


@dataclass(frozen=True)
class Evaluation:
    """One pass over the held-out prompts: samples, scores by metric, and the combined reward."""

    samples: Sequence[Sample]
    seeds: Sequence[int]
    scores: Mapping[str, Float[Tensor, " B"]]
    """Raw scores by reward name, and `reward`, the trained sum of them."""
    prompts: Sequence[int]
    """Which prompt each sample answers: samples of one prompt are resampled together."""
    failures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By reward name: why each sample has no score, empty where it has one."""


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` prompts taken evenly from the file, or all of them where it holds fewer."""
    if count >= len(prompts):
        return list(prompts)
    return [prompts[index * len(prompts) // count] for index in range(count)]


def draws(config: EvaluateConfig) -> list[tuple[int, Prompt, int]]:
    """Number of the prompt, prompt and seed of every sample of an evaluation."""
    return [
        (index, prompt, config.seed + 1_000_003 * index + member)
        for index, prompt in enumerate(spread(load_prompts(config.prompts), config.count))
        for member in range(config.samples_per_prompt)
    ]


def evaluate(recipe: Recipe, config: EvaluateConfig) -> Evaluation:
    """One sample per prompt and seed the way users run the model, scored by every reward.

    Prompts and seeds depend on the config alone, so two evaluations differ only by the weights.
    """
    rows = draws(config)
    samples: list[Sample] = []
    with torch.no_grad():
        for start in track(
            range(0, len(rows), config.rows), description="evaluate", transient=True
        ):
            part = rows[start : start + config.rows]
            samples += recipe.policy.sample([row[1] for row in part], [row[2] for row in part])
        judged = recipe.rewards.judge(samples, config.samples_per_prompt, stops=False)
        scores = {name: one.values for name, one in judged.items()}
        table = {name: values[:, None] for name, values in scores.items()}
        combined = recipe.combine(table, 0).flatten()
    return Evaluation(
        samples,
        [row[2] for row in rows],
        {**scores, "reward": combined},
        [row[0] for row in rows],
        {name: one.failures() for name, one in judged.items()},
    )


def summarize(found: Evaluation) -> dict[str, dict[str, Any]]:
    """Mean and bootstrap interval over prompts of every metric, with n and the values.

    Bounds are NaN where one prompt alone was scored, and so is the mean where none was.
    """
    summary = {}
    for name, scores in found.scores.items():
        mean, low, high = bootstrap_ci(scores.tolist(), groups=found.prompts, level=LEVEL)
        values = scores.tolist()
        known = sum(map(math.isfinite, values))
        summary[name] = {"mean": mean, "low": low, "high": high, "n": known, "values": values}
    return summary


def write_evaluation(folder: Path, when: str, recipe: Recipe, found: Evaluation) -> None:
    """Put the summary into `evaluation.json` under `when` ("before", "after", a checkpoint).

    `evaluations/<when>/` gets every sample and the tables by slice.
    """
    path = folder / "evaluation.json"
    tree = json.loads(path.read_text("utf-8")) if path.exists() else {}
    weights = recipe.rewards.weights
    roles = {
        "trained": "reward",
        "watched": [name for name, weight in weights.items() if weight == 0],
        "weights": weights,
        "level": LEVEL,
    }
    tree = {**roles, **tree, when: summarize(found)}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json_text(tree, 1), encoding="utf-8")
    os.replace(temporary, path)
    write_result(folder / "evaluations" / when, to_result(recipe, found, when))


def to_result(recipe: Recipe, found: Evaluation, name: str) -> Result:
    """Every sample with its scores, for files that stand on their own."""
    rows = []
    for index, sample in enumerate(found.samples):
        values = {metric: scores[index].item() for metric, scores in found.scores.items()}
        rows.append(
            Row(
                prompt=sample.prompt.text,
                group=found.prompts[index],
                seed=found.seeds[index],
                scores={key: v if math.isfinite(v) else None for key, v in values.items()},
                metadata=dict(sample.prompt.metadata),
                text=sample.text if isinstance(sample, TextSample) else None,
                answer=sample.prompt.answer,
                media=str(sample.prompt.images[0]) if sample.prompt.images else None,
                confidence=sample.confidence if isinstance(sample, TextSample) else None,
                pictures=pictures_hash(sample.prompt.images),
                failures={
                    metric: told[index] for metric, told in found.failures.items() if told[index]
                },
            )
        )
    subject = {
        "weights": name,
        "sha256": weights_hash(recipe.policy.module),
        "prompts_sha256": prompt_set(rows),
    }
    return Result(subject, describe(recipe.rewards), rows, level=LEVEL)


def weights_hash(module: nn.Module) -> str:
    """sha256 over names and bytes of all weights: equal exactly where all weights are equal."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_gallery(folder: Path, when: str, found: Evaluation, count: int) -> None:
    """Keep `count` samples, evenly spread, for the page: videos as WebP, answers as text."""
    gallery = folder / "gallery"
    gallery.mkdir(parents=True, exist_ok=True)
    path = gallery / "index.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    total = len(found.samples)
    chosen = [index * total // min(count, total) for index in range(min(count, total))]
    for number, index in enumerate(chosen):
        if number == len(entries):
            entries.append({"prompt": found.samples[index].prompt.text})
        entries[number] |= _entry(gallery, number, when, found, index)
    path.write_text(json_text(entries, 1), encoding="utf-8")


def _entry(gallery: Path, number: int, when: str, found: Evaluation, index: int) -> dict[str, Any]:
    sample = found.samples[index]
    scores = {name: values[index].item() for name, values in found.scores.items()}
    entry: dict[str, Any] = {
        "seed": found.seeds[index],
        f"scores_{when}": scores,
    }
    if isinstance(sample, VideoSample):
        if not torch.isfinite(sample.video).all():
            return entry | {"kind": "video", f"broken_{when}": "pixels are not finite"}
        name = f"{number:03d}_{when}.webp"
        (gallery / name).write_bytes(encode_webp(sample.video, fps=sample.fps, scale=4))
        return entry | {"kind": "video", when: name}
    entry |= {"kind": "text", when: sample.text, "answer": sample.prompt.answer}
    if sample.prompt.images:
        name = f"{number:03d}.png"
        load_image(sample.prompt.images[0]).save(gallery / name)
        entry["image"] = name
    return entry
