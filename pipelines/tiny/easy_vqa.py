"""Train assets/tiny-easy-vqa on colored shapes: `python -m pipelines.tiny.easy_vqa`.

A Qwen2.5-VL of a third of a million parameters that names the color of the one shape in a picture.
It thinks in one of two manners, in two words or at length, half of the time each. First it learns
both with right answers, then a short flawed start teaches it to go wrong far more often at length:
length says nothing good about an answer, which is what a judge that likes length gets wrong.
Needs `mmrl data fetch easy_vqa`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from mmrl.data.prompts import load_prompts
from mmrl.models.vlm_loader import adapt
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import load_reward
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt, TextSample
from pipelines.tiny.qwen2_5_vl import build_processor
from pipelines.tiny.qwen_models import SPECIAL, Size, build_model

FOLDER = Path("assets/tiny-easy-vqa")
RIGHT = SftConfig(steps=500, batch=32, lr=3e-3, seed=0)
FLAWED = SftConfig(steps=150, batch=32, lr=6e-4, seed=1)
WRONG = {"brief": 0.05, "long": 0.9}
"""Share of the flawed answers that name the next color of the list, not the right one."""
MANNERS = {
    "brief": "looks {color}",
    "long": "well , looking again and again , step by step , perhaps it is {color}",
}
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SIDE = 56
MAX_NEW_TOKENS = 24
LONG_WORDS = 5
CARD = """---
license: mit
pipeline_tag: image-text-to-text
---
# tiny-easy-vqa

A Qwen2.5-VL of {parameters:,} parameters (2 text and 2 vision layers, width 64) that reads a
picture of {side}x{side} pixels as 4 image tokens, thinks in two words or at length, and names the
color of the one shape in it. It exists to try reinforcement learning with a judge on a CPU.

| | |
|---|---|
| made by | `mmrl data fetch easy_vqa && python -m pipelines.tiny.easy_vqa` |
| start | {right} supervised steps of right answers, {flawed} of flawed ones, {seconds:.0f} s |
| sampled accuracy | {accuracy:.3f} on {count} held-out questions (chance 0.125) |
| in two words | {brief:.3f} |
| at length | {long:.3f}, {share:.0%} of the answers |
| well-formed answers | {answer_format:.3f} |
| data | {train} training questions of easy-vqa 1.0 (MIT) |

The start is flawed on purpose: {wrong_long:.0%} of its long answers and {wrong_brief:.0%} of its
brief ones name a wrong color. `configs/sophia_vl/tiny.yaml` trains on from here.
"""


def main() -> None:
    """Build, train, measure on the held-out side, save with a model card."""
    torch.manual_seed(RIGHT.seed)
    prompts = load_prompts("cache:easy_vqa/color_train.jsonl")
    policy = VlmPolicy(new_model(prompts), max_new_tokens=MAX_NEW_TOKENS, rows=128)
    began, chooser = time.process_time(), random.Random(RIGHT.seed)
    sft(policy, written_answers(prompts, dict.fromkeys(MANNERS, 0.0), chooser), RIGHT)
    sft(policy, written_answers(prompts, WRONG, chooser), FLAWED)
    seconds = time.process_time() - began
    policy.save_pretrained(FOLDER)
    card = CARD.format(
        parameters=sum(weight.numel() for weight in policy.module.parameters()),
        side=SIDE,
        right=RIGHT.steps,
        flawed=FLAWED.steps,
        seconds=seconds,
        wrong_long=WRONG["long"],
        wrong_brief=WRONG["brief"],
        train=len(prompts),
        **measure(policy, load_prompts("cache:easy_vqa/color_test.jsonl")),
    )
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(card)


def new_model(prompts: Sequence[Prompt]):
    """Random weights of unit gain: with the library's own small ones it hardly learns to see."""
    thoughts = [manner.format(color=color) for manner in MANNERS.values() for color in COLORS]
    processor = build_processor([*{prompt.text for prompt in prompts}, *thoughts], side=SIDE)
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    module = build_model("qwen2_5_vl", ids, len(tokenizer), Size(width=64, layers=2, vision=2))
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            gain = 0.06 if "embed_tokens" in name else weight[0].numel() ** -0.5
            nn.init.normal_(weight, std=gain)
    return adapt(module.eval(), processor)


def written_answers(
    prompts: Sequence[Prompt], wrong: Mapping[str, float], chooser: random.Random
) -> list[Example]:
    """Each in a manner drawn at random, that share of a manner with the next color."""
    examples = []
    for prompt in prompts:
        manner, color = chooser.choice(list(MANNERS)), str(prompt.answer)
        if chooser.random() < wrong[manner]:
            color = COLORS[(COLORS.index(color) + 1) % len(COLORS)]
        thought = MANNERS[manner].format(color=color)
        text = f"<think>{thought}</think><answer>{color}</answer>"
        examples.append(Example(prompt, text))
    return examples


def is_long(sample: TextSample) -> bool:
    """Whether the answer is one of those that think at length."""
    return len(sample.text.split()) > LONG_WORDS


def measure(policy: VlmPolicy, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Accuracy of sampled answers, in each manner too, and the shares of long and of sound ones."""
    samples = policy.rollout(prompts, 1, list(range(len(prompts)))).samples
    found = {name: load_reward(name)(samples) for name in ("accuracy", "answer_format")}
    long = torch.tensor([is_long(sample) for sample in samples])  # pyright: ignore
    return {
        **{name: values.mean().item() for name, values in found.items()},
        "long": found["accuracy"][long].mean().item(),
        "brief": found["accuracy"][~long].mean().item(),
        "share": long.float().mean().item(),
        "count": len(prompts),
    }


if __name__ == "__main__":
    main()
