"""What do the videos of assets/tiny-wan show? `python -m pipelines.tiny.measure [SHEET.png]`.

Samples, and real videos through the VAE as their ceiling, are read by exact measures: mean colour
of the foreground, drift of its centroid, and an SVM over the centred glyph.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cosine_similarity, grid_sample, interpolate

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.wan import ASSETS, TEXT_LENGTH
from pipelines.tiny.wan_vae import to_vae
from pipelines.tiny.world import (
    COLOURS,
    DIRECTIONS,
    GLYPH,
    HIGH,
    LOW,
    NUM_FRAMES,
    SIDE,
    Combination,
    choose,
    combinations,
    draw,
)

COUNT, NUM_STEPS, ROWS = 256, 10, 32
READER_VIDEOS = 3000
ReadDigits = Callable[[Float[Tensor, "B F 3 H W"]], list[int]]


def main(sheet: Path | None = None) -> None:
    """Accuracies of samples and of real videos, clean and through the VAE, as JSON."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(ASSETS / "tiny-wan", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    read_digits = digit_reader()
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, side in (("train prompts", False), ("held-out prompts", True)):
        asked = choose(combinations(held_out=side), COUNT, generator)
        videos = sample(pipeline, asked, generator)
        found[f"samples, {name}"] = accuracy(videos, asked, read_digits)
        if sheet is not None:
            save_sheet(sheet.with_stem(f"{sheet.stem}-{name.split()[0]}"), videos[:24])
    shown = choose(combinations(), COUNT, generator)
    real = draw(shown, held_out=True, generator=generator)
    found["real videos"] = accuracy(real, shown, read_digits)
    decoded = through_vae(pipeline.vae, real)
    found["real videos through the VAE"] = accuracy(decoded, shown, read_digits)
    found["VAE squared error in [-1, 1]"] = 4 * (decoded - real).square().mean().item()
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def sample(
    pipeline, asked: Sequence[Combination], generator: torch.Generator
) -> Float[Tensor, "B F 3 H W"]:
    """One video for each, by the pipeline's own Euler steps, without guidance."""
    parts = []
    for start in track(range(0, len(asked), ROWS), description="sample"):
        out = pipeline(
            prompt=[one.caption for one in asked[start : start + ROWS]],
            height=SIDE,
            width=SIDE,
            num_frames=NUM_FRAMES,
            num_inference_steps=NUM_STEPS,
            guidance_scale=1.0,
            max_sequence_length=TEXT_LENGTH,
            generator=generator,
            output_type="pt",
        )
        parts.append(out.frames)
    return torch.cat(parts)


@torch.no_grad()
def through_vae(vae, videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F 3 H W"]:
    """Encoded and decoded, in [0, 1]."""
    parts = [vae.decode(vae.encode(to_vae(part)).latent_dist.mode()).sample for part in
             videos.split(ROWS)]  # fmt: skip
    return ((torch.cat(parts) + 1) / 2).clamp(0, 1).transpose(1, 2)


def accuracy(
    videos: Float[Tensor, "B F 3 H W"], shown: Sequence[Combination], read_digits: ReadDigits
) -> dict[str, float]:
    """Share of videos that show the colour, the direction, the digit, all three."""
    right = {
        "colour": [a == b.colour for a, b in zip(read_colours(videos), shown, strict=True)],
        "direction": [
            a == b.direction for a, b in zip(read_directions(videos), shown, strict=True)
        ],
        "digit": [a == b.digit for a, b in zip(read_digits(videos), shown, strict=True)],
    }
    right["all"] = [all(flags) for flags in zip(*right.values(), strict=True)]
    return {name: round(sum(flags) / len(flags), 3) for name, flags in right.items()}


def read_colours(videos: Float[Tensor, "B F 3 H W"]) -> list[str]:
    """The colour nearest in angle to the mean colour of the foreground."""
    light = (videos - LOW).clamp(min=0)
    mean = (foreground(videos)[:, :, None] * light).mean((1, 3, 4))
    known = torch.tensor(list(COLOURS.values()))
    nearest = cosine_similarity(mean[:, None], known[None], dim=-1).argmax(1)
    return [list(COLOURS)[index] for index in nearest.tolist()]


def read_directions(videos: Float[Tensor, "B F 3 H W"]) -> list[str]:
    """The direction nearest to the least-squares drift of the foreground's centroid."""
    time = torch.linspace(-1, 1, videos.shape[1])
    drift = (time[None, :, None] * centroids(videos)).sum(1)
    known = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)
    return [list(DIRECTIONS)[index] for index in (drift @ known.T).argmax(1).tolist()]


def digit_reader() -> ReadDigits:
    """An SVM over the glyph, centred and averaged over frames, fitted on train-side handwriting."""
    from sklearn.svm import SVC

    generator = torch.Generator().manual_seed(4)
    shown = choose(combinations(), READER_VIDEOS, generator)
    videos = draw(shown, held_out=False, generator=generator)
    classifier = SVC(C=10.0).fit(glyphs(videos).numpy(), [one.digit for one in shown])
    return lambda videos: classifier.predict(glyphs(videos).numpy()).tolist()


def glyphs(videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B D"]:
    """The foreground around its centroid, averaged over frames, at half resolution, peak 1."""
    count = len(videos)
    frames = rearrange(foreground(videos), "b f h w -> (b f) 1 h w")
    middle = rearrange(centroids(videos), "b f two -> (b f) two").flip(-1)
    pixel = torch.arange(GLYPH) - (GLYPH - 1) / 2
    window = torch.stack(torch.meshgrid(pixel, pixel, indexing="xy"), dim=-1)
    grid = (middle[:, None, None] + window + 0.5) / SIDE * 2 - 1
    found = grid_sample(frames, grid, align_corners=False)
    mean = rearrange(found, "(b f) 1 h w -> b f h w", b=count).mean(1, keepdim=True)
    small = interpolate(mean, size=GLYPH // 2, mode="area").flatten(1)
    return small / small.amax(1, keepdim=True).clamp(min=1e-3)


def centroids(videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F 2"]:
    """Row and column of the foreground's centre."""
    weight = foreground(videos)
    total = weight.sum((2, 3)).clamp(min=1e-6)
    pixel = torch.arange(SIDE, dtype=torch.float32)
    rows, columns = weight.sum(3) @ pixel, weight.sum(2) @ pixel
    return torch.stack([rows, columns], dim=-1) / total[..., None]


def foreground(videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F H W"]:
    """How much of the brightest channel is digit, in [0, 1]; faint haze counts as background."""
    alpha = ((videos.amax(2) - LOW) / (HIGH - LOW)).clamp(0, 1)
    return alpha * (alpha > 0.2)


def save_sheet(path: Path, videos: Float[Tensor, "B F 3 H W"]) -> None:
    """Two videos a row, frames side by side, pixels enlarged three times."""
    from torchvision.utils import save_image

    frames = rearrange(videos, "b f c h w -> (b f) c h w")
    enlarged = interpolate(frames, scale_factor=3, mode="nearest")
    save_image(enlarged, path, nrow=2 * videos.shape[1])


if __name__ == "__main__":
    main(*[Path(argument) for argument in sys.argv[1:]])
