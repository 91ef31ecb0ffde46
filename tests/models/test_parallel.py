"""A sample's tokens on two processes: the networks' own output and gradient, and what is refused.

diffusers counts accelerators before it splits; on a CPU the workers tell it of one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from mmrl.config import ConfigError
from mmrl.models.parallel import check_split, split_tokens
from mmrl.models.pipeline import make_adapter
from mmrl.policies.video_model import VideoModel
from tests.models import tiny_images, tiny_pipelines

SPLIT = ("wan22_5b", "wan22_a14b", "flux", "flux2", "qwen-image")


def build(name: str) -> VideoModel:
    """The same random weights in every process."""
    torch.manual_seed(0)
    if name in tiny_images.FAMILIES:
        return make_adapter(tiny_images.FAMILIES[name].build(), tiny_images.SIZE)
    family = tiny_pipelines.FAMILIES[name]
    return make_adapter(family.build(), family.size)


def velocity_and_gradients(model: VideoModel, timestep: float) -> list[torch.Tensor]:
    """Of two states: the velocity, then the gradient of its square sum by every weight."""
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    told = model.encode(["a red three", "blue"])
    model.module.zero_grad()
    found = model.predict(x, timestep, told)
    found.square().sum().backward()
    return [found.detach(), *(_gradient(p) for p in model.module.parameters())]


def _gradient(p: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad.clone()


def compare(names: tuple[str, ...]) -> None:
    """What a worker runs: whole, then split, with the gradients of all processes added."""
    torch.accelerator.device_count = lambda: 1
    distributed.init_process_group("gloo")
    for name in names:
        model = build(name)
        timesteps = (900.0, 500.0)  # both sides of the boundary of two experts
        whole = [velocity_and_gradients(model, timestep) for timestep in timesteps]
        split_tokens(model, 2)
        for timestep, expected in zip(timesteps, whole, strict=True):
            velocity, *gradients = velocity_and_gradients(model, timestep)
            for gradient in gradients:
                distributed.all_reduce(gradient)
                gradient.div_(distributed.get_world_size() // 2)
            for one, other in zip([velocity, *gradients], expected, strict=True):
                scale = max(1.0, other.abs().max().item())
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
def test_split_networks_have_the_velocity_and_the_gradient_of_whole_ones() -> None:
    """Four processes: two samples at a time, each on two."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"]
    done = subprocess.run(
        [*launch, "--master-port", "29604", __file__],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["cogvideox", "hunyuan_video", "ltx"])
def test_a_network_that_cannot_be_split_is_named_with_those_that_can(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^context_parallel.*cannot split.*WanTransformer3DModel"
    ):
        split_tokens(build(name), 2)


def test_counts_that_do_not_spread_evenly_are_named() -> None:
    with pytest.raises(ConfigError, match="2 attention heads do not spread evenly over 3"):
        check_split(build("wan22_5b"), 3)
    images = tiny_images.FAMILIES["flux"].build()
    odd = replace(tiny_images.SIZE, height=4, width=12)
    with pytest.raises(ConfigError, match="3 tokens of a sample do not spread evenly over 2"):
        check_split(make_adapter(images, odd), 2)
    odd = replace(tiny_images.SIZE, max_sequence_length=47)
    with pytest.raises(ConfigError, match="47 text tokens do not spread evenly over 2"):
        check_split(make_adapter(images, odd), 2)


def test_one_process_is_told_how_to_start_two() -> None:
    message = r"2 processes a sample do not spread over 1: start with `accelerate launch --num_pro"
    with pytest.raises(ConfigError, match=message):
        split_tokens(build("wan22_5b"), 2)


if __name__ == "__main__":
    compare(SPLIT)
