"""Qwen2-VL as a judge: a head read where reward tokens stand (VideoAlign, HPSv3).

Published weights saw plain positions 0, 1, 2 .. on all three rotary axes, as the library of their
time gave them; today's library would compute other ones. So the positions are passed in.
"""

# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false
# (the library behind this adapter types its own parts loosely)

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmrl.config import ConfigError
from mmrl.data.coordinates import ImageSize, smart_resize
from mmrl.models.folder import check_model_folder
from mmrl.models.place import Place, to_host
from mmrl.models.reward_checkpoint import Checkpoint

FACTOR = 28
SYSTEM = "You are a helpful assistant."
CONTROL = re.compile(r"<\|[^|<>]*\|>")


@dataclass(frozen=True)
class RewardTokenModel:
    """The backbone, its head, and the tokens at which the head is read."""

    module: nn.Module
    head: nn.Module
    processor: Any
    tokens: Sequence[str]
    place: Place
    """Of the backbone; the head is there too, in float32."""

    @property
    def token_ids(self) -> list[int]:
        """Ids of the reward tokens."""
        return self.processor.tokenizer.convert_tokens_to_ids(list(self.tokens))

    def score(
        self, pictures: Float[Tensor, "F 3 H W"], text: str, *, video: bool
    ) -> Float[Tensor, " K"]:
        """One number a reward token: its own output of the head, or the only one."""
        found = self.outputs(pictures, text, video=video)
        if found.shape[1] == 1:
            return found[:, 0]
        if found.shape[0] != found.shape[1]:
            raise ValueError(f"a head of {found.shape[1]} outputs for {len(found)} reward tokens")
        return found.diagonal()

    @torch.no_grad()
    def outputs(
        self, pictures: Float[Tensor, "F 3 H W"], text: str, *, video: bool
    ) -> Float[Tensor, "K O"]:
        """All outputs of the head at the K reward tokens of one user turn: media, then `text`.

        `pictures` are the frames of a video, or one picture, already of the size the model sees,
        RGB in [0, 1].
        """
        ids, pixels, grid = self._inputs(pictures, text, video=video)
        core = self.module.model
        kind = core.get_video_features if video else core.get_image_features
        features = torch.cat(list(kind(pixels, grid).pooler_output))
        embeds = core.get_input_embeddings()(ids)
        pad = self._pad_id(video)
        where = (ids == pad)[..., None].expand_as(embeds)
        embeds = embeds.masked_scatter(where, features.to(embeds.dtype))
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        found = core.language_model(inputs_embeds=embeds, position_ids=positions)
        logits = self.head(found.last_hidden_state.float())
        return at_tokens(ids.cpu(), to_host(logits), self.token_ids)[0]

    def _inputs(
        self, pictures: Float[Tensor, "F 3 H W"], text: str, *, video: bool
    ) -> tuple[Int[Tensor, "1 L"], Tensor, Tensor]:
        levels = pictures * 255
        if video:
            found = self.processor.video_processor(
                videos=[levels], do_resize=False, do_sample_frames=False, return_tensors="pt"
            )
            pixels, grid = found["pixel_values_videos"], found["video_grid_thw"]
        else:
            found = self.processor.image_processor(
                images=[levels[0]], do_resize=False, return_tensors="pt"
            )
            pixels, grid = found["pixel_values"], found["image_grid_thw"]
        pad = "<|video_pad|>" if video else "<|image_pad|>"
        merge = self.module.config.vision_config.spatial_merge_size
        count = int(grid.prod()) // merge**2
        turn = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|>{pad * count}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = self.processor.tokenizer(turn, return_tensors="pt", add_special_tokens=False)
        place = self.place
        return place.whole(ids["input_ids"]), place.floats(pixels), place.whole(grid)

    def _pad_id(self, video: bool) -> int:
        config = self.module.config
        return config.video_token_id if video else config.image_token_id


def at_tokens(
    ids: Int[Tensor, "B L"], logits: Float[Tensor, "B L O"], token_ids: Sequence[int]
) -> Float[Tensor, "B K O"]:
    """Head outputs at the K reward tokens, in the order they stand in.

    ValueError unless each row holds exactly K of them: a prompt was cut, or smuggles one in.
    """
    where = torch.isin(ids, torch.tensor(list(token_ids)))
    count = len(token_ids)
    if not bool((where.sum(1) == count).all()):
        raise ValueError(f"need exactly {count} reward tokens a row, got {where.sum(1).tolist()}")
    return rearrange(logits[where], "(b k) o -> b k o", k=count)


def check_question(path: Path, tokens: Sequence[str]) -> Path:
    """ConfigError unless the file holds {caption} and each reward token exactly once."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    text = path.read_text("utf-8")
    for part in ("{caption}", *tokens):
        if text.count(part) != 1:
            raise ConfigError(f"{path}: needs {part} once, has it {text.count(part)} times")
    return path


def harmless(text: str) -> str:
    """The text without control tokens: a reward token in a caption would be read as one."""
    return CONTROL.sub("", text)


def frame_indices(total: int, fps: float, *, sample_fps: float) -> list[int]:
    """Frames that VideoAlign looks at: about `sample_fps` a second, an even number from 4 to 768.

    ValueError for a video of one frame.
    """
    most = min(768, total) // 2 * 2
    count = 2 * round(min(max(total / fps * sample_fps, 4), most) / 2)
    if not 2 <= count <= total:
        raise ValueError(f"a video of {total} frames is too short for a score of its motion")
    return torch.linspace(0, total - 1, count, dtype=torch.float64).round().long().tolist()


def resized(
    video: Float[Tensor, "F 3 H W"], *, min_pixels: int, max_pixels: int
) -> Float[Tensor, "F 3 h w"]:
    """Bicubic with antialiasing to the size of `smart_resize` with sides in multiples of 28."""
    size = ImageSize(width=video.shape[-1], height=video.shape[-2])
    chosen = smart_resize(size, factor=FACTOR, min_pixels=min_pixels, max_pixels=max_pixels)
    shape = (chosen.height, chosen.width)
    return interpolate(video, shape, mode="bicubic", antialias=True).clamp(0, 1)


def load_reward_tokens(
    base: str, checkpoint: Checkpoint, tokens: Sequence[str], *, place: Place
) -> RewardTokenModel:
    """The base model with the checkpoint in it; ConfigError names weights that do not fit."""
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    check_model_folder(base, "config.json")
    processor = AutoProcessor.from_pretrained(base)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    module = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=place.dtype)
    module.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    head = _head(checkpoint.head())
    weights = checkpoint.merged(module.state_dict())
    try:
        unexpected = module.load_state_dict(weights, strict=False).unexpected_keys
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(f"does not fit {base}: {reason}", key="checkpoint") from error
    if unexpected:
        raise ConfigError(f"{base} has no weight '{unexpected[0]}'", key="checkpoint")
    # from_pretrained made the weights of that type and left the rotary frequencies in float32
    parts: list[nn.Module] = [module.eval(), head]
    module, head = (part.to(place.device) for part in parts)
    return RewardTokenModel(module, head, processor, tokens, place)


def _head(weights: Mapping[str, Tensor]) -> nn.Module:
    """One linear layer, or several with ReLU between, at the places that their names tell."""
    if "weight" in weights:
        bias = "bias" in weights
        head: nn.Module = nn.Linear(*reversed(weights["weight"].shape), bias=bias)
    else:
        places = sorted({int(name.split(".")[0]) for name in weights})
        layers: list[nn.Module] = []
        for place in range(places[-1] + 1):
            linear = place in places
            shape = reversed(weights[f"{place}.weight"].shape) if linear else ()
            between = nn.ReLU() if place - 1 in places else nn.Identity()
            layers.append(nn.Linear(*shape, bias=f"{place}.bias" in weights) if linear else between)
        head = nn.Sequential(*layers)
    head.load_state_dict({name: value.float() for name, value in weights.items()})
    return head.eval()
