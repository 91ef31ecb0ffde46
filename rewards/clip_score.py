"""CLIPScore of a video: how well its frames fit the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.models.clip import ClipModel, check_clip_folder, load_clip
from mmrl.models.folder import folder_hash
from mmrl.models.place import Device, Place, Precision
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample


@rewards.register("clip_score")
class ClipScore(RewardConfig):
    """factor * max(0, mean over frames of cos(image, text)) (CLIPScore, arXiv:2104.08718, eq. 1).

    The original puts "A photo depicts " before a caption; generation papers drop it, and so does
    the default. Frames are the centres of equal segments of the clip.
    """

    reads_spread_frames: ClassVar[bool] = True
    model: str
    """A folder: an open_clip one (open_clip_config.json) or a transformers CLIPModel."""
    weight_factor: float = Field(default=2.5, gt=0)
    prefix: Literal["", "A photo depicts "] = ""
    num_frames: int = Field(default=8, ge=1)
    rows: int = Field(default=256, ge=1)
    """Frames of one forward pass."""
    device: Device = None
    precision: Precision = "float32"

    def check(self) -> None:
        """Whether `model` is a folder of a CLIP."""
        check_clip_folder(self.model)

    @cached_property
    def clip(self) -> ClipModel:
        """The model, loaded on first use."""
        return load_clip(self.model, place=Place.of(self.device, self.precision))

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        texts = [self.prefix + sample.prompt.text for sample in samples]
        videos = [sample.video for sample in samples]
        cosine = self.clip.video_text_cosine(
            videos, texts, num_frames=self.num_frames, rows=self.rows
        )
        return self.weight_factor * cosine.clamp(min=0)

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        return {
            "sha256": folder_hash(self.model),
            "frames": f"uniform:{self.num_frames}",
            "scale": f"{self.weight_factor:g} x mean cosine, clamped at 0",
        }
