"""A Qwen3-VL of tiny size with random weights, and its processor around a small tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.qwen2_5_vl import CHAT_TEMPLATE
from pipelines.tiny.qwen_models import HEAD_WIDTH, SPECIAL, Size, trained_tokenizer

PATCH = 16
VOCABULARY = 512
PIECES = (
    "<thinking>",
    "</thinking>",
    "<answer>",
    "</answer>",
    '{"action_description": "',
    '", "action_type": "',
    '", "value": "',
    '", "point_2d": [',
    "]}",
)
"""What every answer repeats, a token each."""


def build_processor(texts: Sequence[str], pixels: int):
    """Qwen3-VL's own processor: byte-level BPE, a token a digit, pictures of `pixels` at most."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    core = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])  # pyright: ignore
    tokenizer = trained_tokenizer(
        core, [*texts, "system\nuser\nassistant\n"], vocabulary=VOCABULARY, whole=PIECES
    )
    size = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": pixels}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer, size: Size) -> nn.Module:
    """Weights of std 1 / sqrt(inputs), so that so small a network is not flat at its start."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    heads = size.width // HEAD_WIDTH
    shared = {"hidden_size": size.width, "intermediate_size": 2 * size.width}
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": size.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": HEAD_WIDTH,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        **shared,
        "depth": size.vision,
        "num_heads": heads,
        "out_hidden_size": size.width,
        "patch_size": PATCH,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(std=start_std(name, weights[0].numel()))
    return model


def start_std(name: str, inputs: int) -> float:
    """Embeddings are read as they are; every other matrix sums over its inputs."""
    if "pos_embed" in name:
        return 0.5
    return 0.3 if "embed_tokens" in name else inputs**-0.5
