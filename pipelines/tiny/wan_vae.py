"""Train the video VAE of assets/tiny-wan: `python -m pipelines.tiny.wan_vae FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.world import choose, combinations, draw

STEPS, BATCH, LR = 900, 8, 1.5e-3
LATENT_CHANNELS = 8
FOREGROUND_WEIGHT = 5.0
LATENT_NOISE = 0.05
"""Std of the noise on latents during training, so that the decoder forgives small errors."""


def main(folder: Path) -> None:
    """Fit the VAE on train-side videos, measure its latents, save it."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    chosen = choose(combinations(held_out=False), 3000, generator)
    videos = to_vae(draw(chosen, held_out=False, generator=generator))
    vae = AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=2,
        scale_factor_spatial=4,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.1)
    for _ in track(range(STEPS), description="video VAE"):
        batch = videos[torch.randint(len(videos), (BATCH,), generator=generator)]
        loss = reconstruction_loss(vae, batch, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    set_latent_statistics(vae, videos[:512])
    vae.save_pretrained(folder)


def to_vae(videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B 3 F H W"]:
    """[0, 1] frames first to [-1, 1] channels first."""
    return (2 * videos - 1).transpose(1, 2).contiguous()


def reconstruction_loss(
    vae, videos: Float[Tensor, "B 3 F H W"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """L1, the moving digit counted five times, plus a faint pull of latents to a unit Gaussian."""
    posterior = vae.encode(videos).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    decoded = vae.decode(posterior.mean + LATENT_NOISE * noise).sample
    digit = (videos.amax(1, keepdim=True) > -0.7).float()
    error = (1 + (FOREGROUND_WEIGHT - 1) * digit) * (decoded - videos).abs()
    return error.mean() + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()


@torch.no_grad()
def set_latent_statistics(vae, videos: Float[Tensor, "B 3 F H W"]) -> None:
    """Mean and std per latent channel into the config, as the Wan pipeline reads them."""
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in videos.split(64)])
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
