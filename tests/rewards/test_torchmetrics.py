"""CLIPScore against torchmetrics on the same tiny model: equal where both are the same number."""

from __future__ import annotations

import pytest
import torch

from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from pipelines.tiny.world import Combination, draw

pytestmark = pytest.mark.filterwarnings("ignore:`max_length` is ignored")
FOLDER = "assets/tiny-clip/transformers"


def reference():
    """torchmetrics' CLIPScore on our folder; it wants tensors where transformers 5 has outputs."""
    pytest.importorskip("torchmetrics")
    from torchmetrics.multimodal import CLIPScore
    from transformers import CLIPModel, CLIPProcessor

    class Features(CLIPModel):
        def get_image_features(self, *args, **kwargs):
            return super().get_image_features(*args, **kwargs).pooler_output

        def get_text_features(self, *args, **kwargs):
            return super().get_text_features(*args, **kwargs).pooler_output

    def load():
        return Features.from_pretrained(FOLDER).eval(), CLIPProcessor.from_pretrained(FOLDER)

    return CLIPScore(load)


def pairs(wrong: bool) -> list[VideoSample]:
    """Single frames with their captions, or with captions of other colours and digits."""
    shown = [
        Combination(3, "red", "left"),
        Combination(8, "blue", "up"),
        Combination(1, "green", "down"),
    ]
    named = shown[1:] + shown[:1] if wrong else shown
    generator = torch.Generator().manual_seed(0)
    frames = draw(shown, held_out=True, generator=generator)[:, :1]
    return [VideoSample(Prompt(n.caption), f) for n, f in zip(named, frames, strict=True)]


def theirs(samples: list[VideoSample]) -> float:
    images = [(sample.video[0] * 255).round().to(torch.uint8) for sample in samples]
    texts = [sample.prompt.text for sample in samples]
    with torch.no_grad():
        return float(reference()(images, texts))


def test_where_every_cosine_is_positive_ours_is_theirs_in_another_unit() -> None:
    samples = pairs(wrong=False)
    ours = load_reward("clip_score", model=FOLDER)(samples)
    assert (ours > 0).all()
    assert 40 * ours.mean().item() == pytest.approx(theirs(samples), abs=1e-3)


def test_a_negative_cosine_parts_them_as_torchmetrics_clamps_the_mean() -> None:
    samples = pairs(wrong=False)[:1] + pairs(wrong=True)
    cosine = load_reward("pick_score", model=FOLDER, scale="cosine")(samples)
    assert (cosine < 0).any()
    assert theirs(samples) == pytest.approx(max(0.0, 100 * cosine.mean().item()), abs=1e-3)
    ours = load_reward("clip_score", model=FOLDER)(samples)
    assert 40 * ours.mean().item() > theirs(samples) + 1
