"""ImageReward's model: BLIP's text encoder looks at the picture, a chain of layers grades it."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportReturnType=false, reportOptionalMemberAccess=false
# (the library behind this adapter types its own parts loosely)

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.models.folder import check_model_folder
from mmrl.models.place import CPU, Place, to_host
from mmrl.models.reward_checkpoint import read_weights

TEXT_LENGTH = 35
SIZES = (1024, 128, 64, 16, 1)
RENAMED = (
    (r"^blip\.visual_encoder\.", "vision_model."),
    (r"^blip\.text_encoder\.", "text_encoder."),
    (r"^vision_model\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^vision_model\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^vision_model\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^vision_model\.norm\.", "vision_model.post_layernorm."),
    (r"^vision_model\.blocks\.(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"(vision_model.*)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"(vision_model.*)\.attn\.qkv\.", r"\1.self_attn.qkv."),
    (r"(vision_model.*)\.attn\.proj\.", r"\1.self_attn.projection."),
)
"""From BLIP's own names to those of transformers, in this order."""
UNUSED = re.compile(r"position_ids$|^blip\.(?:vision_proj|text_proj|itm_head)\.")


@dataclass(frozen=True)
class BlipReward:
    """The two towers, the grading layers, and what turns pictures and words into their inputs."""

    vision: nn.Module
    text: nn.Module
    layers: nn.Module
    tokenizer: Any
    image_size: int
    place: Place = CPU

    @torch.no_grad()
    def score(self, frames: UInt8[Tensor, "N 3 H W"], texts: Sequence[str]) -> Float[Tensor, " N"]:
        """The raw grade of each picture for its text."""
        pixels = torch.stack([self._pixels(frame) for frame in frames])
        seen = self.vision(self.place.floats(pixels)).last_hidden_state
        words = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        )
        read = self.text(
            input_ids=self.place.whole(words["input_ids"]),
            attention_mask=self.place.whole(words["attention_mask"]),
            encoder_hidden_states=seen,
            encoder_attention_mask=seen.new_ones(seen.shape[:2], dtype=torch.long),
        )
        return to_host(self.layers(read.last_hidden_state[:, 0])[:, 0])

    def _pixels(self, frame: UInt8[Tensor, "3 H W"]) -> Float[Tensor, "3 S S"]:
        from open_clip.transform import image_transform

        picture = Image.fromarray(rearrange(frame, "c h w -> h w c").numpy())
        return image_transform(self.image_size, is_train=False)(picture)


def load_blip_reward(config: str, checkpoint: Path, place: Place = CPU) -> BlipReward:
    """BLIP of the folder's config with every weight from the checkpoint (`ImageReward.pt`)."""
    from transformers import AutoTokenizer, BlipConfig, BlipForImageTextRetrieval

    check_model_folder(config, "config.json")
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint}: no such file", key="checkpoint")
    chosen = BlipConfig.from_pretrained(config)
    whole = BlipForImageTextRetrieval(chosen).eval()
    layers = grading_layers(chosen.text_config.hidden_size)
    weights = {modern(name): value for name, value in read_weights(checkpoint).items()}
    for prefix, module in (
        ("vision_model.", whole.vision_model),
        ("text_encoder.", whole.text_encoder),
        ("mlp.layers.", layers),
    ):
        _fill(module, weights, prefix, checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(config)
    size = chosen.vision_config.image_size
    parts = (place.holds(part) for part in (whole.vision_model, whole.text_encoder, layers))
    return BlipReward(*parts, tokenizer, size, place)


def grading_layers(width: int) -> nn.Sequential:
    """width -> 1024 -> 128 -> 64 -> 16 -> 1 with dropout and without activations."""
    drops = {0: 0.2, 1: 0.2, 2: 0.1}
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(zip((width, *SIZES[:-1]), SIZES, strict=True)):
        layers.append(nn.Linear(inputs, outputs))
        if index in drops:
            layers.append(nn.Dropout(drops[index]))
    return nn.Sequential(*layers).eval()


def modern(name: str) -> str:
    """A weight's name in transformers."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _fill(module: nn.Module, weights: Mapping[str, Tensor], prefix: str, file: Path) -> None:
    mine = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix) and not UNUSED.search(name)
    }
    try:
        module.load_state_dict(mine)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(f"{file} does not fit: {reason}", key="checkpoint") from error
