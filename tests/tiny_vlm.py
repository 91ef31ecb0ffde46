"""Real Qwen models of tiny size with random weights, and pictures of noise for them."""

from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from mmrl.models.qwen_vl import QwenVlModel
from mmrl.policies.vlm import VlmPolicy
from mmrl.types import Prompt
from pipelines.tiny.qwen2_5_vl import SPECIAL, build_processor
from pipelines.tiny.qwen_models import Size, build_model

Family = Literal["qwen2_vl", "qwen2_5_vl"]
FAMILIES: tuple[Family, ...] = ("qwen2_vl", "qwen2_5_vl")
QUESTIONS = ("what is it?", "what is it?", "is the picture bright or is it dark, would you say?")


def random_model(family: Family, *, std: float = 0.08) -> QwenVlModel:
    """Weights far from 0, so that no answer is likely by default and errors show."""
    processor = build_processor(QUESTIONS)
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    torch.manual_seed(0)
    module = build_model(family, ids, len(tokenizer), Size(width=64, layers=2, vision=2))
    for weights in module.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=std)
    return QwenVlModel(module.eval(), processor)


def random_policy(family: Family) -> VlmPolicy:
    """Six tokens an answer, two groups of three a pass."""
    return VlmPolicy(random_model(family), max_new_tokens=6, rows=6, temperature=0.7)


def noise_prompts(folder: Path) -> list[Prompt]:
    """Three pictures; the last question is longer than the others."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for index, question in enumerate(QUESTIONS):
        pixels = torch.randint(256, (112, 112, 3), generator=generator, dtype=torch.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(pixels.numpy()).save(path)
        made.append(Prompt(question, (path,), answer="A"))
    return made
