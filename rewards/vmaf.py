"""How near is a video to its reference, as people would see it? VMAF."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.files import named_path
from mmrl.data.video import read_video
from mmrl.data.vmaf import MODEL, vmaf
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("vmaf")
class Vmaf(RewardConfig):
    """VMAF of Netflix, mean over frames, 0 to 100, by the ffmpeg of the package imageio-ffmpeg.

    The reference is the prompt's first video, or the file `metadata["reference"]`
    (`cache:NAME/file` is one of a fetched data set; a served reward refuses it, and takes the
    prompt's video, which travels by content). Without a reference the score is NaN; one of another
    size or length is an error. Frames pass through RGB, which moves the score by some
    hundredths against ffmpeg on the files themselves.
    """

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> float:
        reference = reference_of(sample)
        return torch.nan if reference is None else vmaf(sample.video, read_video(reference))

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        engine = f"imageio-ffmpeg {version('imageio-ffmpeg')}"
        return {"model": f"{MODEL}, {engine}", "frames": "all", "scale": "0 to 100"}


def reference_of(sample: VideoSample) -> Path | None:
    """The file a sample is compared with."""
    if sample.prompt.videos:
        return sample.prompt.videos[0]
    named = sample.prompt.metadata.get("reference")
    return None if named is None else named_path(str(named))
