"""GenEval: are the objects of the prompt there, as many, of their colours, where they should be?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.data.geneval import Clause, Detection, clause_scores
from mmrl.data.video import quantize, uniform_indices
from mmrl.registry import load_file
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import Prompt, VideoSample

Detector = Callable[[UInt8[Tensor, "H W 3"]], Sequence[Detection]]


@rewards.register("geneval")
class GenEval(RewardConfig):
    """Share of the prompt's clauses that hold, or 1 only where all do (arXiv:2310.11513).

    `metadata["geneval"]` is a JSON list of clauses {label, count, color, relation, other}; a prompt
    without it scores NaN. The detector is yours: `file.py:name` of a function from an RGB picture
    to Detections. GenEval's own is Mask2Former with colours by CLIP; numbers of another detector
    do not compare with published ones. Frames are averaged.
    """

    reads_spread_frames: ClassVar[bool] = True
    detector: str
    rule: Literal["soft", "strict", "official"] = "soft"
    """`soft` and `strict` want exact counts, `official` at least as many."""
    num_frames: int = Field(default=1, ge=1)

    @cached_property
    def detect(self) -> Detector:
        """The detector, loaded on first use."""
        file, _, name = self.detector.partition(":")
        found = getattr(load_file(Path(file)), name, None)
        if not callable(found):
            raise ConfigError(
                f"{self.detector}: expected file.py:name of a function", key="detector"
            )
        return cast(Detector, found)

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: VideoSample) -> float:
        clauses = clauses_of(sample.prompt)
        if not clauses:
            return math.nan
        picked = sample.video[uniform_indices(len(sample.video), self.num_frames)]
        scores = [self._of_frame(clauses, self.detect(frame)) for frame in quantize(picked)]
        return sum(scores) / len(scores)

    def _of_frame(self, clauses: Sequence[Clause], found: Sequence[Detection]) -> float:
        scores = clause_scores(clauses, found, strict=self.rule != "official")
        whole = all(score == 1.0 for score in scores)
        return sum(scores) / len(scores) if self.rule == "soft" else float(whole)


def clauses_of(prompt: Prompt) -> list[Clause]:
    """The clauses in the prompt's metadata; ValueError where they are broken."""
    text = prompt.metadata.get("geneval")
    return [] if text is None else [Clause(**entry) for entry in json.loads(str(text))]
