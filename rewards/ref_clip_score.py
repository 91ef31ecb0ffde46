"""RefCLIPScore of a written caption: does it fit the picture, and what people wrote about it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer
from mmrl.data.images import load_image
from mmrl.models.clip import ClipModel, check_clip_folder, load_clip
from mmrl.models.folder import folder_hash
from mmrl.models.place import Device, Place, Precision
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("ref_clip_score")
class RefClipScore(RewardConfig):
    """2 a b / (a + b), a = factor max(0, cos(image, caption)), b = max(0, max cos(caption, ref)).

    RefCLIPScore (arXiv:2104.08718, section 3); 0 where either part is. The caption is the answer
    block, or the whole text where it has no such tag; an empty one fits nothing and scores 0. The
    references are the prompt's answer, split at "|". A prompt without a reference, or with another
    number of pictures than one, scores NaN. The prefix stands before captions and references, as
    in the original.
    """

    model: str
    """A folder: an open_clip one (open_clip_config.json) or a transformers CLIPModel."""
    weight_factor: float = Field(default=2.5, gt=0)
    prefix: Literal["", "A photo depicts "] = "A photo depicts "
    device: Device = None
    precision: Precision = "float32"

    def check(self) -> None:
        """Whether `model` is a folder of a CLIP."""
        check_clip_folder(self.model)

    @cached_property
    def clip(self) -> ClipModel:
        """The model, loaded on first use."""
        return load_clip(self.model, place=Place.of(self.device, self.precision))

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        scores = torch.tensor([0.0 if _judgeable(sample) else math.nan for sample in samples])
        told = [caption(sample.text) for sample in samples]
        judged = [i for i, score in enumerate(scores.tolist()) if score == 0 and told[i]]
        if judged:
            found = self._scores([samples[i] for i in judged], [told[i] for i in judged])
            scores[judged] = torch.tensor(found)
        return scores

    @torch.no_grad()
    def _scores(self, samples: Sequence[TextSample], captions: Sequence[str]) -> list[float]:
        wanted = [references(sample.prompt.answer) for sample in samples]
        texts = list(dict.fromkeys([*captions, *(one for some in wanted for one in some)]))
        rows = self.clip.embed_texts([self.prefix + text for text in texts])
        of_text = dict(zip(texts, rows, strict=True))
        pictures = {sample.prompt.images[0] for sample in samples}
        of_picture = {path: self.clip.embed_images(_pixels(path))[0] for path in sorted(pictures)}
        return [
            harmonic_mean(
                self.weight_factor * float(of_text[said] @ of_picture[sample.prompt.images[0]]),
                max(float(of_text[said] @ of_text[one]) for one in some),
            )
            for sample, said, some in zip(samples, captions, wanted, strict=True)
        ]

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        return {
            "sha256": folder_hash(self.model),
            "scale": f"harmonic mean of {self.weight_factor:g} x cosine with the picture and the "
            "largest cosine with a reference, both clamped at 0",
        }


def harmonic_mean(first: float, second: float) -> float:
    """2 a b / (a + b) of the two numbers clamped at 0; 0 where one of them is."""
    a, b = max(first, 0.0), max(second, 0.0)
    return 2 * a * b / (a + b) if a and b else 0.0


def caption(text: str) -> str:
    """The one answer block, or all of a text without that tag; empty where tags do not match."""
    return (answer_block(text) or "") if "answer>" in text else text.strip()


def references(answer: str | None) -> list[str]:
    """The captions of a reference, which "|" parts."""
    return [part.strip() for part in reference_answer(answer).split("|") if part.strip()]


def _judgeable(sample: TextSample) -> bool:
    return bool(references(sample.prompt.answer)) and len(sample.prompt.images) == 1


def _pixels(path: Path) -> Tensor:
    return rearrange(torch.from_numpy(np.array(load_image(path))), "h w c -> 1 c h w")
