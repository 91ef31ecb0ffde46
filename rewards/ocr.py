"""Does a video show the text that its prompt puts between quotation marks?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.ocr_match import ocr_score, ocr_targets
from mmrl.data.video import to_uint8, uniform_indices
from mmrl.models.ocr import ocr_engine, ocr_origin
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("ocr")
class Ocr(RewardConfig):
    """Mean over frames and wanted texts of 1 - min(edit distance, length) / length, in [0, 1].

    1 where the wanted text stands in what is read, spaces and case aside. Wanted is
    `metadata["ocr_target"]`, or every text between two `"` of the prompt; Flow-GRPO's code takes
    the first alone. A prompt that wants no text scores NaN. Needs `pip install 'mmrl[real]'`.
    """

    reads_spread_frames: ClassVar[bool] = True
    num_frames: int = Field(default=4, ge=1)

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> float:
        targets = ocr_targets(sample.prompt.text, sample.prompt.metadata)
        if not targets or not all(target.strip() for target in targets):
            return math.nan
        read = ocr_engine()
        frames = sample.video[uniform_indices(len(sample.video), self.num_frames)]
        texts = [read(frame) for frame in to_uint8(frames)]
        return fmean(ocr_score(text, target) for text in texts for target in targets)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {**ocr_origin(), "frames": f"uniform:{self.num_frames}", "scale": "0 to 1"}
