"""Qwen2.5-VL-3B's shapes with random weights, for `gpu_vlm`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pipelines.tiny.qwen2_5_vl import build_processor
from pipelines.tiny.qwen_models import SPECIAL

QUESTION = "Describe the picture, then say which of the four options is right and why. "
END = "<|im_end|>"


@dataclass(frozen=True)
class Case:
    """The network's shapes, and how much it reads and writes."""

    text: dict[str, Any]
    vision: dict[str, Any]
    side: int
    """Pixels of the square picture: (side / 28)^2 image tokens."""
    new_tokens: int
    group_size: int
    repeats: int
    """Training steps that count, after one to warm up."""


FULL = Case(
    text={
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    },
    vision={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    },
    side=896,
    new_tokens=512,
    group_size=8,
    repeats=2,
)
TINY = Case(
    text={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 640,
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [4, 6, 6],
        },
    },
    vision={
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    },
    side=112,
    new_tokens=8,
    group_size=4,
    repeats=1,
)


def write_model(folder: Path, case: Case, device: torch.device) -> None:
    """A model in bfloat16 and its processor, as transformers loads them.

    The tokenizer knows no end token, so an answer ends where it may not go on.
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    processor = build_processor([QUESTION], case.side)
    tokenizer = processor.tokenizer
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration(network_config(case, tokenizer))
    model.bfloat16().save_pretrained(folder)
    tokenizer.eos_token = None
    processor.save_pretrained(folder)


def network_config(case: Case, tokenizer):
    """Where the tokenizer's special tokens are its own, not Qwen's."""
    from transformers import Qwen2_5_VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    ends = {"eos_token_id": ids[END], "pad_token_id": ids["<|endoftext|>"]}
    return Qwen2_5_VLConfig(
        text_config={**case.text, **ends, "bos_token_id": ids["<|im_start|>"]},
        vision_config=case.vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def write_picture(path: Path, side: int) -> None:
    """Grey noise."""
    Image.effect_noise((side, side), 80).convert("RGB").save(path)
