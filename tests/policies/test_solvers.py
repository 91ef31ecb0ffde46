"""The multistep solver of evaluation: the pipeline's own, and exact on straight lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.models.pipeline import load_video_model
from mmrl.policies.noise import GroupNoise
from mmrl.policies.solvers import unipc
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import VideoSize
from mmrl.types import Prompt

FOLDER = "assets/tiny-wan"
SIZE = {"num_frames": 5, "height": 16, "width": 16, "max_sequence_length": 8}
PROMPTS = [Prompt("a red three moving left"), Prompt("a blue nine moving up")]
STEPS, SHIFT = 6, 3.0


def policy(guidance: float) -> VideoPolicy:
    sampling = Sampling(
        "ode",
        num_steps=3,
        eta=0.0,
        shift=SHIFT,
        guidance=guidance,
        eval_steps=STEPS,
        solver="unipc",
    )
    model = load_video_model(FOLDER, VideoSize(**SIZE), dtype=torch.float32)
    return VideoPolicy(model, sampling, lambda _: StepPlan.deterministic(3), rows=1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_unipc_equals_the_pipelines_own_call_with_that_scheduler(guidance: float) -> None:
    """Two prompts in passes of one row, against each alone in the pipeline."""
    ours = policy(guidance)
    samples = ours.sample(PROMPTS, [7, 8])
    pipeline = WanPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    for prompt, seed, sample in zip(PROMPTS, (7, 8), samples, strict=True):
        theirs = pipeline(
            prompt=prompt.text,
            negative_prompt="",
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            latents=GroupNoise([seed], 1, ours.model.latent_shape).first(shared=False),
            output_type="np",
            **SIZE,
        ).frames[0]
        expected = torch.from_numpy(np.asarray(theirs)).permute(0, 3, 1, 2)
        assert expected.std() > 1e-2
        torch.testing.assert_close(sample.video, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_straight_line_is_solved_exactly(steps: int) -> None:
    """v = noise - data everywhere: any number of steps ends on the data."""
    generator = torch.Generator().manual_seed(0)
    noise, data = torch.randn(2, 2, 3, 1, 2, 2, generator=generator)
    found = unipc(lambda x, timestep: noise - data, noise, steps, SHIFT, "velocity")
    torch.testing.assert_close(found, data, rtol=0, atol=1e-5)


def curved_end(steps: int, *, second_order: bool) -> float:
    """Error of the end of dx / dsigma = x from x(1) = e, which is x(0) = 1."""
    x = torch.full((1, 1, 1, 1, 1), torch.e, dtype=torch.float64)
    if second_order:
        found = unipc(lambda x, timestep: x, x, steps, 1.0, "velocity")
    else:
        found = x * (1 - 1 / steps) ** steps
    return abs(found.item() - 1)


def test_the_solver_beats_first_order_steps_on_a_curved_path() -> None:
    assert curved_end(16, second_order=True) < 0.2 * curved_end(16, second_order=False)


@pytest.mark.parametrize(("shift", "output"), [(None, "velocity"), (3.0, "v_prediction")])
def test_a_model_that_unipc_does_not_fit_is_a_config_error(
    shift: float | None, output: str
) -> None:
    x = torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(
        ConfigError, match=r"sampling\.solver: unipc needs a flow model and a shift"
    ):
        unipc(lambda x, timestep: x, x, 2, shift, output)
