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
from mmrl.data.geneval import Detection, Wanted, clause_scores, correct, read_wanted
from mmrl.data.video import quantize, uniform_indices
from mmrl.registry import load_file
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import Prompt, VideoSample

Detector = Callable[[UInt8[Tensor, "H W 3"]], Sequence[Detection]]


@rewards.register("geneval")
class GenEval(RewardConfig):
    """Share of the prompt's clauses that hold, or 1 only where all do (arXiv:2310.11513).

    `metadata["geneval"]` is JSON: a line of GenEval's evaluation_metadata.jsonl, or a list of
    clauses {label, count, color, relation, other}; a prompt without it scores NaN. The detector is
    yours: `file.py:name` of a function from an RGB picture to Detections. GenEval's own is
    Mask2Former (confidence 0.3, at most 16 a class) with colours by CLIP; numbers of another
    detector do not compare with published ones. Frames are averaged.
    """

    reads_spread_frames: ClassVar[bool] = True
    detector: str
    rule: Literal["soft", "strict", "official"] = "soft"
    """`soft` and `strict` want exact counts, `official` at least as many and nothing excluded."""
    counting_confidence: float = Field(default=0.9, ge=0, le=1)
    """Of `official`, with the tag `counting`: detections up to it are none."""
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
        wanted = wanted_of(sample.prompt)
        if wanted is None or not wanted.include:
            return math.nan
        picked = sample.video[uniform_indices(len(sample.video), self.num_frames)]
        scores = [self._of_frame(wanted, self.detect(frame)) for frame in quantize(picked)]
        return sum(scores) / len(scores)

    def _of_frame(self, wanted: Wanted, found: Sequence[Detection]) -> float:
        if self.rule == "soft":
            scores = clause_scores(wanted.include, found)
            return sum(scores) / len(scores)
        official = self.rule == "official"
        if official and wanted.tag == "counting":
            found = [one for one in found if one.score > self.counting_confidence]
        return float(correct(wanted.include, found, strict=not official, exclude=wanted.exclude))


def wanted_of(prompt: Prompt) -> Wanted | None:
    """What the prompt's metadata ask for, None where they do not; ValueError where broken."""
    told: object = prompt.metadata.get("geneval")
    if told is None:
        return None
    return read_wanted(json.loads(told) if isinstance(told, str) else told)
