"""Qwen2-VL and Qwen2.5-VL of any size, with random weights, and tokenizers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from torch import nn

import mmrl.torchvision_fix  # noqa: F401

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Size:
    """Width of both towers, a multiple of 64, and their layers."""

    width: int
    layers: int
    vision: int


def trained_tokenizer(
    core: Tokenizer, texts: Sequence[str], *, vocabulary: int, whole: Sequence[str]
):
    """`core` after it has learned `vocabulary` tokens; those of `whole` are never cut."""
    from transformers import PreTrainedTokenizerFast

    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(whole),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in whole])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[3:]),
        model_max_length=512,
    )
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    return tokenizer


def build_model(
    family: Literal["qwen2_vl", "qwen2_5_vl"], ids: dict[str, int], vocabulary: int, size: Size
) -> nn.Module:
    """A model whose special tokens have these `ids`; attention heads are 32 wide."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
    )

    shared = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    text = _text_config(ids, vocabulary, size)
    heads, depth = size.width // HEAD_WIDTH, size.vision
    if family == "qwen2_vl":
        vision = {"embed_dim": size.width, "mlp_ratio": 2, "hidden_size": size.width}
        vision |= {"depth": depth, "num_heads": heads}
        config = Qwen2VLConfig(text_config=text, vision_config=vision, **shared)
        return Qwen2VLForConditionalGeneration(config)
    vision = {"hidden_size": size.width, "intermediate_size": 2 * size.width, "depth": depth}
    vision |= {"out_hidden_size": size.width, "num_heads": heads, "window_size": 56}
    vision |= {"fullatt_block_indexes": [depth - 1]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **shared)
    return Qwen2_5_VLForConditionalGeneration(config)


def _text_config(ids: dict[str, int], vocabulary: int, size: Size) -> dict:
    heads = size.width // HEAD_WIDTH
    return {
        "vocab_size": vocabulary,
        "hidden_size": size.width,
        "intermediate_size": 2 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],
        },
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
