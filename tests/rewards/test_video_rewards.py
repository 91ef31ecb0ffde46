"""Video rewards: hand-made videos, limits, and real CLIP models at tiny size."""

from __future__ import annotations

import pytest
import torch

from mmrl.models.clip import load_clip
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from pipelines.tiny.world import COLOURS, DIGITS, DIRECTIONS, Combination, draw
from rewards.smoothness import jerk


def moving(combination: Combination, text: str | None = None) -> VideoSample:
    generator = torch.Generator().manual_seed(0)
    video = draw([combination], held_out=True, generator=generator)[0]
    return VideoSample(Prompt(text or combination.caption), video)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("asked", DIRECTIONS)
def test_motion_direction_is_the_cosine_with_what_was_asked(direction: str, asked: str) -> None:
    sample = moving(Combination(3, "red", direction), f"a red three moving {asked}")
    (rows, columns), (r, c) = DIRECTIONS[direction], DIRECTIONS[asked]
    found = load_reward("motion_direction")([sample]).item()
    assert found == pytest.approx(rows * r + columns * c, abs=0.12)


def test_motion_direction_abstains_where_nothing_is_asked_and_scores_0_where_nothing_moves() -> (
    None
):
    still = VideoSample(Prompt("a red three moving left"), torch.full((9, 3, 32, 32), 0.1))
    nothing_asked = moving(Combination(3, "red", "left"), "a red three")
    one_frame = VideoSample(Prompt("moving left"), torch.rand(1, 3, 8, 8))
    found = load_reward("motion_direction")([still, nothing_asked, one_frame])
    assert found[0] == 0
    assert found[1:].isnan().all()


def test_smoothness_is_1_for_even_motion_and_falls_with_flicker() -> None:
    ramp = torch.linspace(0, 1, 9).view(9, 1, 1, 1).expand(9, 3, 4, 4)
    flicker = torch.tensor([0.0, 1.0] * 4).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    short = torch.zeros(2, 3, 4, 4)
    samples = [VideoSample(Prompt("x"), video) for video in (ramp, flicker, short)]
    found = load_reward("smoothness", tolerance=0.5)(samples)
    assert found[0].item() == pytest.approx(1.0, abs=1e-5)
    assert found[1].item() == pytest.approx(torch.exp(torch.tensor(-4.0)).item())
    assert found[2].isnan()


def test_the_jerk_of_a_long_video_is_that_of_its_whole_piece_by_piece() -> None:
    for frames in (34, 35, 66, 67, 100):
        video = torch.rand(frames, 3, 4, 4, dtype=torch.float64)
        assert jerk(video).item() == pytest.approx(video.diff(n=2, dim=0).abs().mean().item())


def test_clip_score_is_the_same_from_open_clip_and_transformers() -> None:
    samples = [moving(Combination(d, c, "left")) for d, c in ((3, "red"), (8, "blue"))]
    found = [
        load_reward("clip_score", model=model)(samples)
        for model in ("assets/tiny-clip", "assets/tiny-clip/transformers")
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("reward", ["clip_score", "pick_score"])
def test_the_right_caption_scores_above_wrong_colours(reward: str) -> None:
    model = {"clip_score": "assets/tiny-clip", "pick_score": "assets/tiny-pick"}[reward]
    scorer = load_reward(reward, model=model)
    for digit, colour in ((1, "red"), (7, "green"), (0, "yellow")):
        shown = Combination(digit, colour, "up")
        asked = [f"a {name} {DIGITS[digit]} moving up" for name in COLOURS]
        found = scorer([moving(shown, text) for text in asked])
        assert list(COLOURS)[int(found.argmax())] == colour


def test_pick_score_is_the_logit_of_transformers_clip_model_and_its_scales_are_named() -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = "assets/tiny-pick"
    sample = moving(Combination(3, "red", "left"))
    still = VideoSample(sample.prompt, sample.video[:1])
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    image = (still.video[0] * 255).round().to(torch.uint8)
    inputs = processor(text=[still.prompt.text], images=[image], return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits_per_image.item()
    raw = load_reward("pick_score", model=folder)([still]).item()
    assert raw == pytest.approx(expected, abs=1e-4)
    scaled = load_reward("pick_score", model=folder, scale="div26")([still]).item()
    assert scaled == pytest.approx(raw / 26, rel=1e-6)
    cosine = load_reward("pick_score", model=folder, scale="cosine")([still]).item()
    assert cosine * load_clip(folder).logit_scale == pytest.approx(raw, rel=1e-5)


def test_duplicated_frames_leave_clip_score_and_pixels_that_are_not_finite_abstain() -> None:
    sample = moving(Combination(3, "red", "left"))
    scorer = load_reward("clip_score", model="assets/tiny-clip", num_frames=18)
    twice = VideoSample(sample.prompt, sample.video.repeat_interleave(2, dim=0))
    assert scorer([twice]).item() == pytest.approx(scorer([sample]).item(), abs=1e-6)
    broken = VideoSample(
        sample.prompt, sample.video.clone().index_fill_(0, torch.tensor(0), torch.nan)
    )
    assert scorer([broken, sample]).isnan().tolist() == [True, False]
