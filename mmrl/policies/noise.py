"""Noise of a rollout: each prompt's from its own seed, whatever batch it is drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmrl.policies.video_model import Latents


class GroupNoise:
    """Noise of some prompts' groups, each prompt's from its own seed."""

    def __init__(
        self, seeds: Sequence[int], group_size: int, shape: tuple[int, int, int, int]
    ) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = (group_size, *shape)

    def first(self, shared: bool) -> Latents:
        """The noise at sigma 1; `shared` gives a group one noise."""
        noise = self.draw().unflatten(0, (-1, self._shape[0]))
        if shared:
            noise = noise[:, :1].expand_as(noise)
        return noise.flatten(0, 1)

    def draw(self) -> Latents:
        """Standard normal noise for one step."""
        return torch.cat([torch.randn(self._shape, generator=g) for g in self._generators])
