"""Finished samples that are read from files in the place of being drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmrl.config import ConfigError, UserError
from mmrl.data.video import read_video
from mmrl.policies.matching import Clean
from mmrl.policies.video import VideoPolicy, chunks
from mmrl.policies.video_model import Latents, VideoEncoder
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
        yield policy.tell(prompts[part], 2), _encode(policy, samples), samples


@torch.no_grad()
def _encode(policy: VideoPolicy, samples: Sequence[VideoSample]) -> Latents:
    """Latents of recorded videos; UserError where they are not of the size that the model makes."""
    model = policy.model
    assert isinstance(model, VideoEncoder)
    sizes = {tuple(sample.video.shape) for sample in samples}
    clean = None if len(sizes) > 1 else model.encode_video(torch.stack([s.video for s in samples]))
    if clean is None or tuple(clean.shape[1:]) != model.latent_shape:
        found = ", ".join(f"{f} frames of {h}x{w}" for f, _, h, w in sorted(sizes))
        raise UserError(f"recorded videos must have the size of the config's video, got {found}")
    return clean
