"""Finished samples that are read from files in the place of being drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmrl.config import ConfigError, UserError
from mmrl.data.video import read_video
from mmrl.policies.matching import Clean
from mmrl.policies.video import VideoPolicy, chunks
from mmrl.policies.video_model import VideoEncoder
from mmrl.types import Prompt, VideoSample


def recorded_pairs(
    policy: VideoPolicy, prompts: Sequence[Prompt], group_size: int, seeds: Sequence[int]
) -> Iterator[Clean]:
    """The two videos of every prompt, the preferred one first, encoded by the model's VAE."""
    if not isinstance(policy.model, VideoEncoder):
        raise ConfigError(
            f"{type(policy.model).__name__} cannot encode recorded videos", key="model"
        )
    if group_size != 2:
        raise ConfigError(f"a pair is a group of 2, got {group_size}", key="group_size")
    fps = policy.sampling.fps
    for part in chunks(len(prompts), max(1, policy.rows // 2)):
        samples = []
        for prompt in prompts[part]:
            if len(prompt.videos) != 2:
                raise UserError(
                    f"prompt {prompt.text!r} has {len(prompt.videos)} videos; a pair needs "
                    '"videos": [preferred, rejected]'
                )
            samples += [VideoSample(prompt, read_video(path), fps) for path in prompt.videos]
        with torch.no_grad():
            clean = policy.model.encode_video(torch.stack([s.video for s in samples]))
        yield policy.tell(prompts[part], 2), clean, samples
