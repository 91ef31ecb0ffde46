"""VMAF through ffmpeg."""

from __future__ import annotations

import pytest
import torch

from mmrl.data.files import cache_folder
from mmrl.data.video import read_video
from mmrl.data.vmaf import vmaf
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample


def test_a_blurred_video_is_worse_than_the_video_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(3, 3, 64, 64, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(video, 5, stride=1, padding=2)
    assert vmaf(video, video) > 90
    assert vmaf(blurred, video) < vmaf(video, video) - 20


def test_another_size_is_an_error_and_no_reference_is_no_score() -> None:
    video = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match="compares frame by frame"):
        vmaf(video, video[:1])
    assert load_reward("vmaf")([VideoSample(Prompt("x"), video)]).isnan().all()


@pytest.mark.real
@pytest.mark.skipif(not (cache_folder() / "carphone").is_dir(), reason="not fetched")
def test_the_carphone_pair_has_the_scores_that_ffmpeg_gives_its_files() -> None:
    """34.685719 and 99.510406 with imageio-ffmpeg 0.8.1 on the mp4 files."""
    folder = cache_folder() / "carphone"
    pristine = folder / "carphone_pristine.mp4"
    prompt = Prompt("x", metadata={"reference": "cache:carphone/carphone_pristine.mp4"})
    videos = [read_video(folder / "carphone_distorted.mp4"), read_video(pristine)]
    found = load_reward("vmaf")([VideoSample(prompt, video) for video in videos])
    assert found.tolist() == pytest.approx([34.685719, 99.510406], abs=0.1)
