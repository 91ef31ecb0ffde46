"""The Wan adapter against the real pipeline: same video, same LoRA, same folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.transitions import TransitionKind
from mmrl.models.pipeline import load_video_model
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.noise import GroupNoise
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import VideoSize
from mmrl.trust_region.weights import is_adapter, trainable
from mmrl.types import Prompt

FOLDER = "assets/tiny-wan"
SIZE = {"num_frames": 5, "height": 16, "width": 16, "max_sequence_length": 8}
PROMPT = Prompt("a red three moving left")


def policy(guidance: float = 1.0) -> VideoPolicy:
    sampling = Sampling("sage", num_steps=4, eta=0.5, shift=None, guidance=guidance)
    return VideoPolicy(
        load_video_model(FOLDER, VideoSize(**SIZE), dtype=torch.float32),
        sampling,
        lambda _: StepPlan.all(4),
        rows=4,
    )


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_deterministic_sampling_equals_the_pipelines_own_call(guidance: float) -> None:
    """Same first noise and noise levels, CFG as one batch against CFG as two, same decoder."""
    ours = policy(guidance)
    video = ours.sample([PROMPT], [7])[0].video
    pipeline = WanPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    noise = GroupNoise([7], 1, ours.model.latent_shape).first(shared=False)
    theirs = pipeline(
        prompt=PROMPT.text,
        negative_prompt="",
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=noise,
        output_type="np",
        **SIZE,
    ).frames[0]
    expected = torch.from_numpy(np.asarray(theirs)).permute(0, 3, 1, 2)
    torch.testing.assert_close(video, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["flow", "sage", "dance", "cps", "bridge"])
def test_the_scheduler_that_wan_ships_rolls_out_states_of_normal_size(kind: TransitionKind) -> None:
    """UniPC begins at sigma 0.999999, where flow's first std would be 200 and not eta."""
    ours = policy()
    ours.sampling = replace(ours.sampling, kind=kind, eta=0.7)
    ours.model.pipeline.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    schedule = ours.schedule(4)
    assert (schedule.levels[0], schedule.timesteps[0]) == (1.0, 1000.0)
    rollout = ours.rollout([PROMPT], 4, [5])
    behavior = rollout.behavior["denoise"]
    assert behavior.scale is not None and behavior.scale.max() < 1.5
    assert 0.3 < rollout.replay.after.square().mean().sqrt() < 3.0
    assert torch.equal(ours.evaluate(rollout)["denoise"].log_probs, behavior.log_probs)


def test_shared_first_noise_is_one_noise_per_group() -> None:
    noise = GroupNoise([1, 2], 3, (1, 1, 2, 2)).first(shared=True).view(2, 3, -1)
    assert (noise == noise[:, :1]).all()
    assert not (noise[0] == noise[1]).any()


def test_samples_of_a_prompt_do_not_depend_on_the_batch_around_it() -> None:
    ours = policy()
    other = Prompt("a blue nine moving up")
    alone = ours.rollout([PROMPT], 2, [5])
    among = ours.rollout([other, PROMPT], 2, [4, 5])
    for a, b in zip(alone.samples, among.samples[2:], strict=True):
        torch.testing.assert_close(a.video, b.video, rtol=0, atol=1e-4)


def test_an_exported_folder_loads_with_the_trained_weights(tmp_path: Path) -> None:
    ours = policy()
    with torch.no_grad():
        next(iter(trainable(ours.module).values())).add_(1.0)
    ours.save_pretrained(tmp_path)
    loaded = WanPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    for name, p in ours.module.named_parameters():
        assert torch.equal(p, loaded.transformer.get_parameter(name)), name


def test_lora_starts_as_the_identity_and_its_export_is_what_diffusers_loads(tmp_path: Path) -> None:
    ours = policy()
    plain = ours.sample([PROMPT], [3])[0].video
    add_lora(ours.module, LoraConfig(rank=2, alpha=4, targets=("to_q", "to_out.0")), seed=0)
    assert torch.equal(ours.sample([PROMPT], [3])[0].video, plain)
    assert is_adapter(ours.module)
    assert all("lora_" in name for name in trainable(ours.module))
    with torch.no_grad():
        for name, p in trainable(ours.module).items():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    changed = ours.sample([PROMPT], [3])[0].video
    assert (changed - plain).abs().max() > 1e-3
    ours.save_pretrained(tmp_path)
    fresh = policy()
    fresh.model.pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(fresh.sample([PROMPT], [3])[0].video, changed, rtol=0, atol=1e-4)
