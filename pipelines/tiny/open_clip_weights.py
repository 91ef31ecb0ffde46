"""A transformers CLIPModel's weights under the names open_clip gives them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

TOKENIZER = "tiny-clip"
"""Any name: open_clip then reads the tokenizer from the model's own folder."""
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def write_open_clip(folder: Path, model, tokenizer) -> None:
    """open_clip_config.json, open_clip_model.safetensors and the tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach() for name, p in model.state_dict().items()}
    save_file(rename(weights, model.config), folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(
        json.dumps(config_of(model.config), indent=1), encoding="utf-8"
    )


def config_of(config) -> dict:
    """The architecture and the preprocessing in open_clip's terms."""
    text, vision = config.text_config, config.vision_config
    return {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": False,
            "vision_cfg": {
                "image_size": vision.image_size,
                "layers": vision.num_hidden_layers,
                "width": vision.hidden_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
                "patch_size": vision.patch_size,
                "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "hf_tokenizer_name": TOKENIZER,
                "vocab_size": text.vocab_size,
                "width": text.hidden_size,
                "heads": text.num_attention_heads,
                "layers": text.num_hidden_layers,
                "pool_type": "argmax",
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }


def rename(weights: dict[str, Tensor], config) -> dict[str, Tensor]:
    """open_clip keeps query, key and value in one matrix and projections transposed."""
    out = {
        "logit_scale": weights["logit_scale"].reshape(()),
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
        "visual.proj": weights["visual_projection.weight"].T,
        "visual.class_embedding": weights["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
    }
    norms = {
        "text_model.final_layer_norm": "ln_final",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
    }
    for source, target in norms.items():
        for part in ("weight", "bias"):
            out[f"{target}.{part}"] = weights[f"{source}.{part}"]
    for source, target in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        for index in range(config.text_config.num_hidden_layers):
            layer = f"{source}.encoder.layers.{index}"
            out |= _layer(weights, layer, f"{target}.resblocks.{index}")
    return {name: value.contiguous().clone() for name, value in out.items()}


def _layer(weights: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    out = {}
    for part in ("weight", "bias"):
        for theirs, ours in LAYER.items():
            out[f"{target}.{ours}.{part}"] = weights[f"{source}.{theirs}.{part}"]
        joined = [weights[f"{source}.self_attn.{name}_proj.{part}"] for name in "qkv"]
        out[f"{target}.attn.in_proj_{part}"] = torch.cat(joined)
    return out
