"""A video model in float64 that is small enough for finite differences and hand-written losses."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import Conditioning
from mmrl.types import Prompt, Turn

SHAPE = (3, 2, 2, 2)
"""RGB, frames, height and width: latents are pixels."""
TEXT_WIDTH = 4
PROMPTS = (Prompt("left"), Prompt("right"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(hidden: int, seed: int = 0) -> nn.Module:
    """Two layers over the latents, the timestep and the prompt."""
    size = torch.Size(SHAPE).numel()
    made = nn.Sequential(
        nn.Linear(size + 1 + TEXT_WIDTH, hidden), nn.Tanh(), nn.Linear(hidden, size)
    ).double()
    generator = seeded(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / p.shape[-1] ** 0.5)
    return made


@dataclass
class ToyVideo:
    """Velocity of an MLP; a latent's sigmoid is its pixel."""

    module: nn.Module
    output: NetworkOutput = "velocity"
    latent_shape: tuple[int, int, int, int] = field(default=SHAPE)

    def to(self, device: torch.device) -> None:
        self.module.to(device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        rows = [
            torch.randn(TEXT_WIDTH, generator=seeded(zlib.crc32(text.encode()))) for text in texts
        ]
        return Conditioning({"text": torch.stack(rows).double()})

    def predict(self, x: Tensor, timestep: float, conditioning: Conditioning) -> Tensor:
        time = torch.full((len(x), 1), timestep / 1000, dtype=torch.float64)
        fed = torch.cat([x.double().flatten(1), time, conditioning.tensors["text"]], dim=1)
        return self.module(fed).view(len(x), *self.latent_shape)

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        return Schedule.shifted(num_steps, 1.0 if shift is None else shift)

    def decode(self, latents: Tensor) -> Tensor:
        return rearrange(latents, "b c f h w -> b f c h w").double().sigmoid()

    def save_pretrained(self, folder: Path) -> None:
        torch.save(self.module.state_dict(), folder / "toy.pt")


def toy_policy(
    *,
    num_steps: int = 4,
    hidden: int = 16,
    seed: int = 0,
    output: NetworkOutput = "velocity",
    plan: Callable[[Turn], StepPlan] | None = None,
    scales: Callable[[Tensor], Tensor] | None = None,
    decision_chunk: int | None = 1,
) -> VideoPolicy:
    """Flow-GRPO's steps on the toy; all but the last are trained unless a plan says otherwise."""
    return VideoPolicy(
        ToyVideo(network(hidden, seed), output),
        Sampling("flow", num_steps=num_steps, eta=0.7, shift=3.0),
        plan or (lambda _: StepPlan.all(num_steps)),
        rows=4,
        scales=scales,
        decision_chunk=decision_chunk,
    )
