"""CogVideoX's grid: alpha-bars and integer timesteps of its own scheduler."""

from __future__ import annotations

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models.pipeline import load_video_model
from mmrl.policies.video_model import VideoModel
from tests.models.tiny_pipelines import FAMILIES, save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoModel:
    family = FAMILIES["cogvideox15"]
    folder = save(family, tmp_path_factory.mktemp("cogvideox"))
    return load_video_model(str(folder), family.size, dtype=torch.float32)


def test_the_grid_rises_from_no_signal_to_no_noise_at_whole_timesteps(model: VideoModel) -> None:
    """Zero terminal SNR: the first state is noise alone, and v is all the network can say."""
    schedule = model.schedule(4, None)
    assert schedule.timesteps.tolist() == [999, 749, 499, 249]
    assert schedule.levels[0] == 0 and schedule.levels[-1] == 1
    assert (schedule.levels.diff() > 0).all()
    assert model.output == "v_prediction"


def test_a_shift_is_refused(model: VideoModel) -> None:
    with pytest.raises(ConfigError, match="no shift to set, got 5"):
        model.schedule(4, 5.0)


def test_frames_that_fill_a_temporal_patch_are_denoised_but_not_shown(model: VideoModel) -> None:
    """9 frames are 3 latent frames, 4 with the one ahead."""
    assert model.latent_shape == (4, 4, 4, 2)
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    shown = model.decode(latents)
    latents[:, :, 0] = 0
    assert shown.shape == (1, 9, 3, 32, 16)
    assert torch.equal(model.decode(latents), shown)
