"""What the adapters of image models do alike: size, text cache, packing, the own grid."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (diffusers types its own returns loosely)

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.diffusion.sampler import Schedule
from mmrl.policies.video_model import Conditioning, Latents, VideoSize

EncodeTexts = Callable[[list[str]], Mapping[str, Shaped[Tensor, "B ..."]]]
"""Texts -> tensors by the network's own names, one row a text."""


@dataclass
class TextCache:
    """Text embeddings; each text is encoded once and kept."""

    encode: EncodeTexts
    _rows: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> Conditioning:
        """One row a text, on `device`."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            found = self.encode(new)
            for row, text in enumerate(new):
                self._rows[text] = {name: value[row] for name, value in found.items()}
        names = self._rows[texts[0]]
        stacked = {name: torch.stack([self._rows[text][name] for text in texts]) for name in names}
        return Conditioning({name: value.to(device) for name, value in stacked.items()})


def check_image_size(size: VideoSize, multiple: int) -> None:
    """ConfigError unless the size is one frame whose sides are multiples of `multiple` pixels."""
    if size.num_frames != 1:
        raise ConfigError(
            f"an image model makes 1 frame, got {size.num_frames}", key="video.num_frames"
        )
    for name in ("height", "width"):
        pixels = getattr(size, name)
        if pixels % multiple:
            raise ConfigError(
                f"{pixels} is no multiple of this model's {multiple} pixels; "
                f"try {max(1, round(pixels / multiple)) * multiple}",
                key=f"video.{name}",
            )


def pack(latents: Latents) -> Float[Tensor, "B S C4"]:
    """Patches of 2 x 2 latents as tokens, row by row; channels before rows and columns."""
    return rearrange(latents, "b c 1 (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(tokens: Float[Tensor, "B S C4"], height: int) -> Latents:
    """The inverse of `pack` for latents `height` rows high."""
    return rearrange(tokens, "b (h w) (c p q) -> b c 1 (h p) (w q)", h=height // 2, p=2, q=2)


def linear_levels(num_steps: int) -> Float[np.ndarray, " N"]:
    """1, 1 - 1/N .. 1/N: what pipelines of packed tokens hand their scheduler."""
    return np.linspace(1.0, 1 / num_steps, num_steps)


def own_schedule(
    scheduler: FlowMatchEulerDiscreteScheduler,
    num_steps: int,
    *,
    levels: Float[np.ndarray, " N"] | None,
    mu: float | None,
) -> Schedule:
    """The noise levels that the pipeline's scheduler visits.

    `levels` come before the shift, None takes the scheduler's own; `mu` is the logarithm of a shift
    that depends on the resolution, and only a scheduler of dynamic shifts reads it.
    """
    if scheduler.config.get("use_flow_sigmas"):
        levels = None
    scheduler.set_timesteps(num_steps, sigmas=levels, mu=mu)
    assert scheduler.sigmas is not None
    return Schedule.flow(scheduler.sigmas.double().cpu())


def as_video(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 3 H W"]:
    """Images as videos of one frame, in float32."""
    return rearrange(images, "b c h w -> b 1 c h w").float()
