"""Train SophiaVL-R1's thinking reward model: a VLM that grades reasoning, by supervised learning.

    python -m pipelines.vision_language.thinking_reward_model \\
        model=Qwen/Qwen2.5-VL-3B-Instruct traces=traces.jsonl output=runs/thinking_reward_model

`output/model` is a folder for `judge: {kind: local, model: ...}`, or for a server of models.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from mmrl.config import Config, ConfigError, UserError, apply_overrides, numbers_as_floats, parse
from mmrl.data.files import json_text
from mmrl.data.judge_scores import read_answer_score
from mmrl.data.prompts import DataError, load_prompts
from mmrl.judge.thinking import INSTRUCTION, thinking_question
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt, TextSample

TENTHS = 10


class ThinkingRewardModel(Config):
    """The paper's choices: plain supervised learning for two epochs, every grade about as often."""

    model: str
    traces: str
    """Prompts with `response` and `score` in their metadata."""
    output: str
    instruction: str = INSTRUCTION
    """What the model reads; a reward that uses it must ask the same."""
    epochs: float = Field(default=2.0, gt=0)
    batch: int = Field(default=16, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    per_tenth: int = Field(default=15_000, ge=1)
    """Most traces kept of each tenth of the scale; the paper has 5,000 to 15,000."""
    held_out: float = Field(default=0.02, gt=0, lt=1)
    """Share of the questions that is graded afterwards and not trained on."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0


def train(config: ThinkingRewardModel) -> dict[str, float]:
    """Clean, split, balance, train, save; how far the grades of held-out traces are off."""
    from mmrl.models.vlm_loader import load_vlm

    traces = load_prompts(config.traces)
    clean = [trace for trace in traces if grade_of(trace) is not None]
    learned, kept_back = split(clean, config.held_out)
    learned = balanced(learned, config.per_tenth, random.Random(config.seed))
    if not learned or not kept_back:
        raise DataError(
            f"{config.traces}: {len(clean)} of {len(traces)} traces have a response and a score in "
            "0 .. 1; too few to train on and to hold back"
        )
    model = load_vlm(config.model, dtype=getattr(torch, config.precision))
    policy = VlmPolicy(model, max_new_tokens=16, rows=config.batch)
    policy.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    steps = math.ceil(config.epochs * len(learned) / config.batch)
    examples = [example_of(trace, config.instruction) for trace in learned]
    sft(policy, examples, SftConfig(steps, config.batch, config.lr, seed=config.seed))
    policy.save_pretrained(Path(config.output) / "model")
    counts = {"traces": len(traces), "clean": len(clean), "trained": len(learned)}
    return counts | measure(policy, kept_back, config.instruction)


def grade_of(trace: Prompt) -> float | None:
    """The label; None where response or score is missing or the score is out of range."""
    score = trace.metadata.get("score")
    if not isinstance(score, int | float) or not trace.metadata.get("response"):
        return None
    return float(score) if 0 <= score <= 1 else None


def split(traces: Sequence[Prompt], share: float) -> tuple[list[Prompt], list[Prompt]]:
    """To train on, and held back: all traces of a question stand on one side."""
    questions = list(dict.fromkeys((trace.text, trace.images) for trace in traces))
    count = max(1, round(share * len(questions)))
    back = set(random.Random(0).sample(questions, min(count, len(questions))))
    sides: tuple[list[Prompt], list[Prompt]] = ([], [])
    for trace in traces:
        sides[(trace.text, trace.images) in back].append(trace)
    return sides


def balanced(traces: Sequence[Prompt], per_tenth: int, chooser: random.Random) -> list[Prompt]:
    """At most `per_tenth` traces of each tenth of the scale, drawn at random."""
    bins: dict[int, list[Prompt]] = {}
    for trace in traces:
        tenth = min(TENTHS - 1, int(TENTHS * (grade_of(trace) or 0.0)))
        bins.setdefault(tenth, []).append(trace)
    return [
        trace
        for tenth in sorted(bins)
        for trace in chooser.sample(bins[tenth], min(per_tenth, len(bins[tenth])))
    ]


def example_of(trace: Prompt, instruction: str) -> Example:
    """What the reward will ask, and the grade in tenths inside answer tags."""
    question = thinking_question(_sample(trace), instruction)
    prompt = Prompt(question.text, trace.images)
    return Example(prompt, f"<answer>{grade_of(trace):.1f}</answer>")


def measure(policy: VlmPolicy, traces: Sequence[Prompt], instruction: str) -> dict[str, float]:
    """Mean absolute error of the grades that can be read, and the share that can."""
    prompts = [example_of(trace, instruction).prompt for trace in traces]
    samples = policy.sample(prompts, [0] * len(prompts))
    found = torch.tensor([read_answer_score(sample.text).score for sample in samples])
    wanted = torch.tensor([grade_of(trace) or 0.0 for trace in traces])
    return {
        "held_out": len(traces),
        "held_out_readable": (~found.isnan()).float().mean().item(),
        "held_out_error": (found - wanted).abs().nanmean().item(),
    }


def _sample(trace: Prompt) -> TextSample:
    return TextSample(trace, str(trace.metadata["response"]))


def main(arguments: Sequence[str]) -> None:
    """`key=value` arguments; a mistake is one line and exit status 2."""
    try:
        tree = numbers_as_floats(apply_overrides({}, arguments))
        config = parse(ThinkingRewardModel, tree)
        found = train(config)
    except UserError as error:
        kind = "config error" if isinstance(error, ConfigError) else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    text = json_text(found, 1) + "\n"
    (Path(config.output) / "evaluation.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
