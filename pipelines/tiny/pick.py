"""Train assets/tiny-pick, a judge of pairs: `python -m pipelines.tiny.pick`.

First the right caption of a frame among 40, then PickScore's loss on pairs. Weights, seed, patch
size and augmentation are not those of tiny-clip, so that its score is a second opinion.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from rich.progress import track
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, cross_entropy, grid_sample, interpolate

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.clip import (
    ASSETS,
    CONTEXT,
    Frames,
    all_captions,
    build_tokenizer,
    caption_index,
    embed_images,
    embed_texts,
    maybe_moving,
    measure,
    save,
)
from pipelines.tiny.world import COLOURS, GLYPH, HIGH, LOW, SIDE, pictures

SEED = 11
CAPTION_STEPS, PAIR_STEPS, BATCH, LR = 2400, 500, 128, 1e-3
DECODED_VIDEOS = 600
KINDS = ("digit", "colour", "both", "noise", "blur", "ghost")
"""How the worse picture of a pair is worse: another digit, another colour, both, or the right
picture under noise, under blur, or with another digit showing through."""


def main(folder: Path = ASSETS / "tiny-pick") -> None:
    """Train on train-side handwriting, measure on the held-out side, save."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    decoded = Frames.build(DECODED_VIDEOS, held_out=False, seed=SEED)
    for steps, loss_of, lr in (
        (CAPTION_STEPS, caption_loss, LR),
        (PAIR_STEPS, pair_loss, LR / 2),
    ):
        fit(model, tokenizer, decoded, loss_of, steps, lr, generator)
    save(folder, model, tokenizer, open_clip=False)
    found = measure(model, tokenizer, Frames.build(400, held_out=True, seed=3))
    found |= pair_accuracy(model, tokenizer)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def build_model(vocabulary: int):
    """A transformers CLIPModel of 0.7 M parameters that reads 8x8 patches."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
        "hidden_act": "gelu",
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def fit(
    model,
    tokenizer,
    decoded: Frames,
    loss_of,
    steps: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """AdamW, one-cycle; the scale of the cosine stays within 100."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in track(range(steps), description=loss_of.__name__):
        loss = loss_of(model, tokenizer, decoded, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6052)


def caption_loss(
    model, tokenizer, decoded: Frames, generator: torch.Generator
) -> Float[Tensor, ""]:
    """-log softmax of the right one among the 40 captions; a quarter of the frames is decoded."""
    digits = torch.randint(10, (BATCH,), generator=generator)
    colours = torch.randint(4, (BATCH,), generator=generator)
    frames = draw_frames(digits, colours, held_out=False, generator=generator)
    rows = torch.randint(len(decoded.shown), (BATCH // 4,), generator=generator)
    moments = torch.randint(decoded.decoded.shape[1], rows.shape, generator=generator)
    seen = torch.tensor([caption_index(decoded.shown[row]) for row in rows.tolist()])
    frames = torch.cat([frames[len(rows) :], decoded.decoded[rows, moments]])
    target = torch.cat([(digits * len(COLOURS) + colours)[len(rows) :], seen])
    texts = embed_texts(model, tokenizer, maybe_moving(all_captions(), generator))
    images = embed_images(model, soften(frames, generator))
    return cross_entropy(model.logit_scale.exp() * images @ texts.T, target)


def pair_loss(model, tokenizer, decoded: Frames, generator: torch.Generator) -> Float[Tensor, ""]:
    """-log softmax over the two pictures of a prompt (PickScore, arXiv:2305.01569, eq. 2).

    Half of the weight is `caption_loss`, which keeps captions apart.
    """
    kinds = torch.randint(len(KINDS), (BATCH,), generator=generator)
    pair, captions = draw_pairs(kinds, held_out=False, generator=generator)
    texts = embed_texts(model, tokenizer, maybe_moving(captions, generator))
    logits = pair_logits(model, pair, texts)
    winner = torch.zeros(BATCH, dtype=torch.long)
    preference = cross_entropy(logits, winner)
    return (preference + caption_loss(model, tokenizer, decoded, generator)) / 2


def pair_logits(
    model, pair: Float[Tensor, "N 2 3 H W"], texts: Float[Tensor, "N E"]
) -> Float[Tensor, "N 2"]:
    """exp(logit_scale) * cos(image, text) of both pictures."""
    images = embed_images(model, rearrange(pair, "n two c h w -> (n two) c h w"))
    images = rearrange(images, "(n two) e -> n two e", two=2)
    return model.logit_scale.exp() * torch.einsum("nte,ne->nt", images, texts)


def draw_pairs(
    kinds: Int[Tensor, " N"], *, held_out: bool, generator: torch.Generator
) -> tuple[Float[Tensor, "N 2 3 H W"], list[str]]:
    """Better and worse picture of a caption, worse in the way of `kinds`."""
    count = len(kinds)
    digits = torch.randint(10, (count,), generator=generator)
    colours = torch.randint(4, (count,), generator=generator)
    other = (digits + torch.randint(1, 10, (count,), generator=generator)) % 10
    paint = (colours + torch.randint(1, 4, (count,), generator=generator)) % 4
    names = [KINDS[kind] for kind in kinds.tolist()]
    wrong_digit = torch.tensor([name in ("digit", "both") for name in names])
    wrong_colour = torch.tensor([name in ("colour", "both") for name in names])
    shown = torch.where(wrong_digit, other, digits), torch.where(wrong_colour, paint, colours)
    better = draw_frames(digits, colours, held_out=held_out, generator=generator)
    worse = draw_frames(*shown, held_out=held_out, generator=generator)
    ghost = draw_frames(other, colours, held_out=held_out, generator=generator)
    blur = avg_pool2d(better, 9, stride=1, padding=4, count_include_pad=False)
    noise = (better + 0.25 * torch.randn(better.shape, generator=generator)).clamp(0, 1)
    spoiled = {"noise": noise, "blur": blur, "ghost": torch.maximum(better, ghost)}
    for name, frames in spoiled.items():
        worse = torch.where(_like(torch.tensor([n == name for n in names]), worse), frames, worse)
    pair = torch.stack([soften(better, generator), soften(worse, generator)], dim=1)
    captions = all_captions()
    return pair, [captions[index] for index in (digits * len(COLOURS) + colours).tolist()]


def draw_frames(
    digits: Int[Tensor, " N"],
    colours: Int[Tensor, " N"],
    *,
    held_out: bool,
    generator: torch.Generator,
) -> Float[Tensor, "N 3 H W"]:
    """Single frames: handwriting anywhere in the frame, turned and stretched a little."""
    images, labels = pictures(held_out=held_out)
    fitting = [torch.nonzero(labels == digit).flatten() for digit in range(10)]
    spread = torch.rand(len(digits), generator=generator)
    rows = [fitting[d][int(u * len(fitting[d]))] for d, u in zip(digits, spread, strict=True)]
    glyphs = interpolate(images[torch.stack(rows)][:, None], size=GLYPH, mode="bicubic").clamp(0, 1)
    grid = affine_grid(_placements(len(digits), generator), [len(digits), 1, SIDE, SIDE], False)
    alpha = grid_sample(glyphs, grid, align_corners=False)
    paint = torch.tensor(list(COLOURS.values()))[colours][:, :, None, None]
    return LOW + (HIGH - LOW) * alpha * paint


def _placements(count: int, generator: torch.Generator) -> Float[Tensor, "N 2 3"]:
    """From frame to glyph coordinates: up to 7 pixels off the middle, 10 degrees, 10 percent."""
    angle, stretch_x, stretch_y, x, y = 2 * torch.rand((5, count), generator=generator) - 1
    angle, size = angle * torch.pi / 18, SIDE / GLYPH
    scale_x, scale_y = size * (1 + 0.1 * stretch_x), size * (1 + 0.1 * stretch_y)
    x, y = (x * (SIDE - GLYPH) / SIDE, y * (SIDE - GLYPH) / SIDE)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([scale_x * cos, -scale_x * sin, scale_y * sin, scale_y * cos], dim=1)
    turn = turn.view(count, 2, 2)
    return torch.cat([turn, -(turn @ torch.stack([x, y], dim=1)[..., None])], dim=2)


def soften(
    frames: Float[Tensor, "N 3 H W"], generator: torch.Generator
) -> Float[Tensor, "N 3 H W"]:
    """A third at half resolution, contrast and brightness of all a little off."""
    third = torch.rand(len(frames), generator=generator) < 1 / 3
    half = interpolate(avg_pool2d(frames, 2), scale_factor=2.0, mode="bilinear")
    frames = torch.where(_like(third, frames), half, frames)
    contrast, shift = torch.rand((2, len(frames), 1, 1, 1), generator=generator)
    return (frames * (0.75 + 0.4 * contrast) + 0.1 * (shift - 0.5)).clamp(0, 1)


@torch.no_grad()
def pair_accuracy(model, tokenizer, count: int = 600) -> dict[str, float]:
    """Share of held-out pairs whose better picture scores higher, for each kind."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for index, name in enumerate(KINDS):
        kinds = torch.full((count,), index)
        pair, captions = draw_pairs(kinds, held_out=True, generator=generator)
        logits = pair_logits(model, pair, embed_texts(model, tokenizer, captions))
        found[f"pairs/{name}"] = (logits[:, 0] > logits[:, 1]).float().mean().item()
    found["pairs"] = sum(found.values()) / len(KINDS)
    return found


def _like(mask: Bool[Tensor, " N"], frames: Float[Tensor, "N 3 H W"]) -> Bool[Tensor, "N 1 1 1"]:
    return mask[:, None, None, None]


if __name__ == "__main__":
    main()
