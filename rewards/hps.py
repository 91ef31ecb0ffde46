"""HPSv2: a CLIP model trained on human preferences between pictures (arXiv:2306.09341)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.models.clip import ClipModel, check_open_clip_folder, load_clip
from mmrl.models.folder import check_file
from mmrl.models.place import Device, Place, Precision
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample


@rewards.register("hps")
class Hps(RewardConfig):
    """Mean over frames of cos(image, text), without the logit scale; tables print it times 100.

    Pictures are resized by their longer side and padded to a square with black, as HPSv2 does and
    CLIP does not. v2.0 and v2.1 weights give numbers that do not compare, and neither do prompts.
    """

    reads_spread_frames: ClassVar[bool] = True
    model: str
    """An open_clip folder of ViT-H-14, or another architecture that the checkpoint fits."""
    checkpoint: Path | None = None
    """`HPS_v2_compressed.pt` or `HPS_v2.1_compressed.pt`; null: the folder's own weights."""
    num_frames: int = Field(default=8, ge=1)
    rows: int = Field(default=64, ge=1)
    """Frames of one forward pass."""
    device: Device = None
    precision: Precision = "float32"

    def check(self) -> None:
        """Whether `model` is a folder of open_clip and the checkpoint is there."""
        check_open_clip_folder(self.model)
        check_file(self.checkpoint, "checkpoint")

    @cached_property
    def clip(self) -> ClipModel:
        """The model, loaded on first use."""
        place = Place.of(self.device, self.precision)
        return load_clip(self.model, place=place, checkpoint=self.checkpoint, pad_to_square=True)

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return self.clip.video_text_cosine(
            [sample.video for sample in samples],
            [sample.prompt.text for sample in samples],
            num_frames=self.num_frames,
            rows=self.rows,
        )

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        weights = self.checkpoint.name if self.checkpoint else self.model
        return {"weights": weights, "frames": f"uniform:{self.num_frames}", "scale": "cosine"}
