"""Numbers that a network is told beside text and noise level: from the config to its forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.models.meta import meta_video_model
from mmrl.models.pipeline import load_video_model, make_adapter
from mmrl.policies.noise import GroupNoise
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.types import Prompt
from tests.models import tiny_images
from tests.models.tiny_pipelines import FAMILIES, STEPS, Family, own_call, save

PROMPT = "a red three"
TOLD = {
    "ltx": {"frame_rate": 8.0},
    "ltx2": {"frame_rate": 12.0},
    "hunyuan_video": {"embedded_guidance": 2.5},
}
CALLED = {"frame_rate": "frame_rate", "embedded_guidance": "guidance_scale"}


def policy(folder: Path, family: Family, told: Mapping[str, float] | None) -> VideoPolicy:
    model = load_video_model(str(folder), family.size, dtype=torch.float32, told=told)
    sampling = Sampling("sage", num_steps=STEPS, eta=0.5, shift=None)
    return VideoPolicy(model, sampling, lambda _: StepPlan.all(STEPS), rows=4)


def own_video(family: Family, folder: Path, noise: Tensor, told: Mapping[str, float]) -> Tensor:
    """Of the pipeline's own call with these numbers as its arguments."""
    arguments = {CALLED[name]: value for name, value in told.items()}
    asked = replace(family, prepare=lambda *of: {**family.prepare(*of), **arguments})
    return own_call(asked, folder, PROMPT, noise, guidance=1.0, output="pt")


@pytest.mark.parametrize("name", TOLD)
def test_what_the_config_says_is_what_the_pipelines_own_call_would_tell(
    name: str, tmp_path: Path
) -> None:
    family, folder = FAMILIES[name], save(FAMILIES[name], tmp_path)
    ours, plain = policy(folder, family, TOLD[name]), policy(folder, family, None)
    video = ours.sample([Prompt(PROMPT)], [7])[0].video
    noise = GroupNoise([7], 1, ours.model.latent_shape).first(shared=False)
    expected = own_video(family, folder, noise, TOLD[name])
    torch.testing.assert_close(video, expected, rtol=0, atol=1e-4)
    assert not torch.equal(plain.sample([Prompt(PROMPT)], [7])[0].video, video)


def test_the_sound_of_ltx2_is_as_long_as_its_frame_rate_says(tmp_path: Path) -> None:
    """The estimate of a run's memory counts the same tokens."""
    folder, size = save(FAMILIES["ltx2"], tmp_path), FAMILIES["ltx2"].size
    for told in (None, {"frame_rate": 4.0}):
        loaded = load_video_model(str(folder), size, dtype=torch.float32, told=told)
        known = meta_video_model(str(folder), size, dtype=torch.float32, told=told)
        assert known.latent_shape == loaded.latent_shape
    assert loaded.audio_frames > 5 * make_adapter(loaded.pipeline, size).audio_frames


def test_a_number_that_a_model_does_not_read_is_refused() -> None:
    message = r"^frame_rate: WanModel has no such number; leave it out$"
    with pytest.raises(ConfigError, match=message):
        make_adapter(
            FAMILIES["wan22_5b"].build(), FAMILIES["wan22_5b"].size, told={"frame_rate": 8.0}
        )


def test_guidance_that_a_network_was_not_distilled_for_is_refused() -> None:
    klein = tiny_images.FAMILIES["flux2-klein"].build()
    with pytest.raises(ConfigError, match=r"^embedded_guidance: .* use sampling\.guidance$"):
        make_adapter(klein, tiny_images.SIZE, told={"embedded_guidance": 3.0})
    dev = tiny_images.FAMILIES["flux2"].build()
    assert (
        make_adapter(dev, tiny_images.SIZE, told={"embedded_guidance": 3.0}).embedded_guidance == 3
    )
