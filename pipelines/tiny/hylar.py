"""Train assets/tiny-hylar on handwritten digits: `python -m pipelines.tiny.hylar`.

A Qwen2.5-VL of 1.2 M parameters that is asked which digit a picture shows. First it learns to read;
then, its tower at rest, a latent cold start teaches it to imagine the digit enlarged before it
answers. The written answers confuse four digits on purpose: that is left to reinforcement learning.
`--text-only FOLDER` trains the same model on the same answers without the imagined picture.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from mmrl.data.prompts import load_prompts
from mmrl.models.compressor import Compressor, TowerPatches
from mmrl.models.latent_tokens import add_span_tokens
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_loader import adapt
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import load_reward
from mmrl.train.latent_sft import LatentExample, LatentSftConfig, latent_sft
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt
from pipelines.tiny.qwen2_5_vl import build_processor
from pipelines.tiny.qwen_models import SPECIAL, Size, build_model
from pipelines.tiny.small_digits import QUESTION, Question, draw_questions
from pipelines.tiny.world import DIGITS

FOLDER = Path("assets/tiny-hylar")
PICTURES = 3000
BASE = SftConfig(steps=500, batch=32, lr=2e-3, seed=0)
START = SftConfig(steps=400, batch=32, lr=1e-3, seed=1)
LATENTS = 4
COLD = LatentSftConfig(START, latent_weight=1.0, trained_stops=True)
SIDE = 56
"""Pixels along a picture's side: four merged patches of the tower."""
CONFUSED = {1: 7, 3: 8, 4: 9, 6: 5}
MISTAKEN = 0.6
"""Share of the digits above that the written answers call by the other one's name."""
CARD = """---
license: cc-by-4.0
pipeline_tag: image-text-to-text
---
# tiny-hylar

A Qwen2.5-VL of {parameters:,} parameters (2 text and 2 vision layers, width 128, bfloat16) that
says which handwritten digit a picture shows, after a span of latents. It exists to try HyLaR on a
CPU.

| | |
|---|---|
| made by | `python -m pipelines.tiny.hylar`, {seconds:.0f} s of one CPU core |
| reading | {base.steps} supervised steps of {base.batch} on enlarged digits, then on usual ones |
| cold start | {start.steps} steps of {start.batch}, regression weight {cold.latent_weight} |
| greedy accuracy | {accuracy:.3f} on {count} held-out pictures |
| on digits that it does not confuse | {sure:.3f} |
| data | scikit-learn's digits (UCI optical recognition of handwritten digits, CC BY 4.0) |

The cold start is flawed on purpose: its written answers take most of the ones, threes, fours and
sixes for another digit. `configs/hylar/tiny.yaml` trains on from here with the true labels.
"""


def main() -> None:
    """Both stages, the held-out accuracy, and the model with its card."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text-only", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        generator = torch.Generator().manual_seed(0)
        questions = draw_questions(Path(scratch), PICTURES, held_out=False, generator=generator)
        model = read_digits(questions)
        policy = (
            text_start(model, questions) if chosen.text_only else latent_start(model, questions)
        )
    held_out = load_prompts("assets/small_digits/heldout.jsonl")
    policy.module.to(torch.bfloat16).to(torch.float32)
    folder = chosen.text_only or FOLDER
    card = CARD.format(
        parameters=sum(weight.numel() for weight in policy.module.parameters()),
        seconds=time.process_time() - began,
        count=len(held_out),
        start=START,
        base=BASE,
        cold=COLD,
        **measure(policy, held_out),
    )
    policy.module.to(torch.bfloat16)
    policy.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


def read_digits(questions: Sequence[Question]) -> VlmModel:
    """A model that names an enlarged digit, then one at its usual size; its tower then rests."""
    torch.manual_seed(BASE.seed)
    processor = build_processor([QUESTION, *DIGITS, *"0123456789"], side=SIDE)
    ids = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    size = Size(width=128, layers=2, vision=2)
    module = build_model("qwen2_5_vl", ids, len(processor.tokenizer), size)
    model = adapt(module.eval(), processor)
    add_span_tokens(model)
    policy = VlmPolicy(model, max_new_tokens=8, rows=64)
    for pictures in ([(one.crop,) for one in questions], [one.prompt.images for one in questions]):
        examples = [
            Example(Prompt(QUESTION, shown), f"<answer>{one.prompt.answer}</answer>")
            for one, shown in zip(questions, pictures, strict=True)
        ]
        sft(policy, examples, BASE)
    model.freeze_vision()
    return model


def latent_start(model: VlmModel, questions: Sequence[Question]) -> LatentVlmPolicy:
    """Stage 2: the crop of the asked cell as the target of the latents."""
    policy = LatentVlmPolicy(
        model, max_new_tokens=32, rows=64, kappa=1.0, max_latents=LATENTS, latent_sampling="mode"
    )
    encoder = TowerPatches(model)
    torch.manual_seed(START.seed)
    compressor = Compressor(encoder.width, encoder.width, queries=LATENTS)
    examples = [
        LatentExample(one.prompt, (before, one.crop, after))
        for one, (before, after) in zip(questions, answers(questions), strict=True)
    ]
    losses = latent_sft(policy, encoder, compressor, examples, COLD)
    print(losses[:: len(losses) // 20])
    return policy


def text_start(model: VlmModel, questions: Sequence[Question]) -> VlmPolicy:
    """Stage 2 without the imagined picture."""
    policy = VlmPolicy(model, max_new_tokens=32, rows=64)
    examples = [
        Example(one.prompt, before + after)
        for one, (before, after) in zip(questions, answers(questions), strict=True)
    ]
    print(sft(policy, examples, START)[:: START.steps // 20])
    return policy


def answers(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """What is written before and after the imagined picture."""
    chooser, written = random.Random(START.seed), []
    for one in questions:
        digit = int(one.prompt.answer or "")
        if digit in CONFUSED and chooser.random() < MISTAKEN:
            digit = CONFUSED[digit]
        thought = f"<think>{DIGITS[digit]}</think><answer>{digit}</answer>"
        written.append(("<think>zoom</think>", thought))
    return written


def measure(policy: LatentVlmPolicy | VlmPolicy, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Greedy accuracy, overall and where the cold start makes no mistakes on purpose."""
    samples = policy.sample(prompts, [0] * len(prompts))
    right = load_reward("accuracy")(samples)
    sure = torch.tensor([int(p.answer or "") not in CONFUSED for p in prompts])
    return {"accuracy": right.mean().item(), "sure": right[sure].mean().item()}


if __name__ == "__main__":
    main()
