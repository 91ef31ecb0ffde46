"""PickScore of a video: a CLIP model trained on human preferences (Kirstain et al., 2305.01569)."""

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


@rewards.register("pick_score")
class PickScore(RewardConfig):
    """exp(logit_scale) * mean over frames of cos(image, text); `scale` names another unit.

    `raw` is the model's own logit (about 18 to 24 for the released weights), `div26` the raw score
    over 26, `cosine` the cosine alone.
    """

    reads_spread_frames: ClassVar[bool] = True
    model: str
    """A transformers CLIPModel folder with its processor."""
    scale: Literal["raw", "div26", "cosine"] = "raw"
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
        texts = [sample.prompt.text for sample in samples]
        videos = [sample.video for sample in samples]
        cosine = self.clip.video_text_cosine(
            videos, texts, num_frames=self.num_frames, rows=self.rows
        )
        if self.scale == "cosine":
            return cosine
        logit = self.clip.logit_scale * cosine
        return logit / 26 if self.scale == "div26" else logit

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        frames = f"uniform:{self.num_frames}"
        return {"sha256": folder_hash(self.model), "frames": frames, "scale": self.scale}
