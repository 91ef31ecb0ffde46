"""What a reward of pixels may judge: looked at once, before the reward is called.

A model gives a plausible number for black frames, for pixels of another range and for an empty
prompt; nothing in the number tells.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from mmrl.reward.base import unit_of
from mmrl.types import Sample, VideoSample

TOLERANCE = 1e-3
"""How far values may lie outside [0, 1], as rounding leaves them; they are clamped."""
Call = TypeVar("Call", bound=Callable[..., Any])


def judges_videos(call: Call) -> Call:
    """A `__call__` that gets sound videos only: no frames, or pixels not finite, score NaN.

    ValueError for what is no video: other than three channels, integers, values outside [0, 1] by
    more than 1e-3. Written answers pass as they are.
    """
    return cast(Call, _screened(call, prompts=False))


def judges_videos_and_prompts(call: Call) -> Call:
    """As `judges_videos`; a blank prompt, which a text tower reads as any other, scores NaN too."""
    return cast(Call, _screened(call, prompts=True))


def sound_video(video: Shaped[Tensor, "*axes"]) -> Float[Tensor, "F 3 H W"] | None:
    """The video within [0, 1]; None where nothing can be judged; ValueError for no video."""
    if video.ndim != 4 or video.shape[1] != 3:
        raise ValueError(f"expected a video (frames, 3, height, width), got {tuple(video.shape)}")
    if not video.is_floating_point():
        raise ValueError(f"expected pixels as floats in [0, 1], got {video.dtype}")
    if video.numel() == 0:
        return None
    # not aminmax, which copies what is not contiguous, as decoded videos are
    low, high = video.detach().amin().item(), video.detach().amax().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(f"expected pixels in [0, 1], got {low:.4g} to {high:.4g}")
    return video if low >= 0 and high <= 1 else video.clamp(0, 1)


def _screened(call: Callable[..., Any], *, prompts: bool) -> Callable[..., Any]:
    @wraps(call)
    def now(self: Any, given: Any) -> Any:
        sound, count = _sound(_listed(self, given), prompts=prompts)
        return _spread(call(self, list(sound.values())) if sound else [], list(sound), count)

    @wraps(call)
    async def later(self: Any, given: Any) -> Any:
        sound, count = _sound(_listed(self, given), prompts=prompts)
        return _spread(await call(self, list(sound.values())) if sound else [], list(sound), count)

    return later if inspect.iscoroutinefunction(call) else now


def _listed(reward: Any, given: Any) -> list[Sample]:
    """What a call got as a list; TypeError for one sample where the call gets several."""
    return [given] if unit_of(reward) == "sample" and not isinstance(given, list) else list(given)


def _sound(samples: Sequence[Sample], *, prompts: bool) -> tuple[dict[int, Sample], int]:
    """Samples that can be judged by their place, and how many there are."""
    found: dict[int, Sample] = {}
    for place, sample in enumerate(samples):
        if prompts and not sample.prompt.text.strip():
            continue
        if not isinstance(sample, VideoSample):
            found[place] = sample
        elif (video := sound_video(sample.video)) is not None:
            same = video is sample.video
            found[place] = sample if same else replace(sample, video=video)
    return found, len(samples)


def _spread(scores: Any, places: Sequence[int], count: int) -> Any:
    """Scores at their places, NaN at the others; gradients are kept."""
    if len(places) == count and count:
        return scores
    if isinstance(scores, Tensor):
        return scores.new_full((count,), torch.nan).index_put((torch.tensor(places),), scores)
    known = dict(zip(places, scores, strict=True))
    found = [known.get(place, math.nan) for place in range(count)]
    return torch.tensor([math.nan if score is None else score for score in found])
