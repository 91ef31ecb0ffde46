"""Train assets/tiny-clip, a judge of captions and frames: `python -m pipelines.tiny.clip`.

A still frame cannot show a direction, so half of the captions name a random one, which teaches the
model to pass it over. Half of the frames went through the video VAE, and all are blurred, shaded or
noisy, so that generated frames are nothing new.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from rich.progress import track
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, normalize, pad

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.wan_vae import to_vae
from pipelines.tiny.world import (
    COLOURS,
    DIGITS,
    DIRECTIONS,
    Combination,
    choose,
    combinations,
    draw,
)

ASSETS = Path("assets")
SEED = 0
STEPS, BATCH, LR = 900, 128, 1e-3
VIDEOS = 1200
CONTEXT = 16
EMBED, WIDTH, LAYERS, HEADS, PATCH = 64, 96, 3, 4, 4


def main() -> None:
    """Train the judge and measure it on held-out handwriting."""
    train = Frames.build(VIDEOS, held_out=False, seed=2)
    test = Frames.build(400, held_out=True, seed=3)
    tokenizer = build_tokenizer()
    torch.manual_seed(SEED)
    model = build_model(len(tokenizer))
    fit(model, tokenizer, train)
    save(ASSETS / "tiny-clip", model, tokenizer, open_clip=True)
    sys.stdout.write(json.dumps(measure(model, tokenizer, test), indent=1) + "\n")


class Frames:
    """Videos, the same videos out of the VAE, and what they show."""

    def __init__(self, clean: Tensor, decoded: Tensor, shown: Sequence[Combination]) -> None:
        self.clean, self.decoded, self.shown = clean, decoded, shown

    @classmethod
    def build(cls, count: int, *, held_out: bool, seed: int) -> Frames:
        """Videos over all combinations: a judge must know them all."""
        from diffusers import AutoencoderKLWan

        generator = torch.Generator().manual_seed(seed)
        shown = choose(combinations(), count, generator)
        clean = draw(shown, held_out=held_out, generator=generator)
        vae = AutoencoderKLWan.from_pretrained(
            ASSETS / "tiny-wan", subfolder="vae", dtype=torch.float32
        )
        with torch.no_grad():
            parts = [
                vae.decode(vae.encode(to_vae(part)).latent_dist.mean).sample
                for part in track(clean.split(64), description="VAE")
            ]
        decoded = ((torch.cat(parts) + 1) / 2).clamp(0, 1).transpose(1, 2)
        return cls(clean, decoded.contiguous(), shown)

    def batch(
        self, rows: Int[Tensor, " N"], generator: torch.Generator
    ) -> Float[Tensor, "N 3 H W"]:
        """One random frame of each video, half of them decoded ones, all augmented."""
        moments = torch.randint(self.clean.shape[1], rows.shape, generator=generator)
        decoded = torch.rand(len(rows), generator=generator) < 0.5
        clean, seen = self.clean[rows, moments], self.decoded[rows, moments]
        return augment(torch.where(decoded[:, None, None, None], seen, clean), generator)


def augment(
    frames: Float[Tensor, "N 3 H W"], generator: torch.Generator
) -> Float[Tensor, "N 3 H W"]:
    """Blur half of them, shade all of them a little, add faint noise."""
    count = len(frames)
    blurred = torch.rand(count, generator=generator)[:, None, None, None] < 0.5
    soft = avg_pool2d(pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    shade = 0.8 + 0.4 * torch.rand((count, 1, 1, 1), generator=generator)
    noise = 0.04 * torch.randn(frames.shape, generator=generator)
    return (torch.where(blurred, soft, frames) * shade + noise).clamp(0, 1)


def caption(one: Combination) -> str:
    """What a still frame can show."""
    return f"a {one.colour} {DIGITS[one.digit]}"


def build_tokenizer():
    """One token a word, start and end marks; the end has the highest id, as CLIP pools there."""
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "a", "photo", "depicts", "moving", *COLOURS, *DIGITS, *DIRECTIONS]
    words += ["<start>", "<end>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+"), "removed", invert=True)
    core.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )


def build_model(vocabulary: int):
    """A transformers CLIPModel of 0.8 M parameters on 32x32 pictures."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_act": "gelu"}
    text = {
        **shared,
        "vocab_size": vocabulary,
        "hidden_size": EMBED,
        "intermediate_size": 4 * EMBED,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    vision = {
        **shared,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "image_size": 32,
        "patch_size": PATCH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBED))


def fit(model, tokenizer, frames: Frames) -> None:
    """AdamW, one-cycle."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.1)
    for _ in track(range(STEPS), description="tiny-clip"):
        loss = contrastive_loss(model, tokenizer, frames, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6052)


def contrastive_loss(
    model, tokenizer, frames: Frames, generator: torch.Generator
) -> Float[Tensor, ""]:
    """-log softmax of the right one among the 40 captions of a still frame."""
    rows = torch.randint(len(frames.shown), (BATCH,), generator=generator)
    images = embed_images(model, frames.batch(rows, generator))
    texts = embed_texts(model, tokenizer, maybe_moving(all_captions(), generator))
    target = torch.tensor([caption_index(frames.shown[row]) for row in rows.tolist()])
    return cross_entropy(model.logit_scale.exp() * images @ texts.T, target)


def embed_images(model, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N E"]:
    """Unit embeddings; pixels from [0, 1] to [-1, 1]."""
    return normalize(model.get_image_features(2 * frames - 1).pooler_output, dim=-1)


def embed_texts(model, tokenizer, texts: Sequence[str]) -> Float[Tensor, "N E"]:
    """Unit embeddings."""
    found = tokenizer(list(texts), padding="max_length", max_length=CONTEXT, return_tensors="pt")
    out = model.get_text_features(found["input_ids"], found["attention_mask"])
    return normalize(out.pooler_output, dim=-1)


def maybe_moving(captions: Sequence[str], generator: torch.Generator) -> list[str]:
    """Half of the captions with a direction, any direction, at the end."""
    ways = [*DIRECTIONS, *[None] * len(DIRECTIONS)]
    drawn = torch.randint(len(ways), (len(captions),), generator=generator).tolist()
    return [
        f"{text} moving {ways[way]}" if ways[way] else text
        for text, way in zip(captions, drawn, strict=True)
    ]


def all_captions() -> list[str]:
    """Ten digits in four colours."""
    return [f"a {colour} {digit}" for digit in DIGITS for colour in COLOURS]


def caption_index(one: Combination) -> int:
    """Place of its caption in `all_captions`."""
    return one.digit * len(COLOURS) + list(COLOURS).index(one.colour)


@torch.no_grad()
def measure(model, tokenizer, frames: Frames) -> dict[str, float]:
    """Retrieval among the 40 captions on middle frames of held-out handwriting."""
    texts = embed_texts(model, tokenizer, all_captions())
    target = torch.tensor([caption_index(one) for one in frames.shown])
    found = {}
    for name, videos in (("clean", frames.clean), ("decoded", frames.decoded)):
        best = (embed_images(model, videos[:, 4]) @ texts.T).argmax(1)
        colours = len(COLOURS)
        found[f"{name}/both"] = (best == target).float().mean().item()
        found[f"{name}/digit"] = (best // colours == target // colours).float().mean().item()
        found[f"{name}/colour"] = (best % colours == target % colours).float().mean().item()
    found["logit_scale"] = model.logit_scale.exp().item()
    return found


def save(folder: Path, model, tokenizer, *, open_clip: bool) -> None:
    """The transformers folder; for tiny-clip also the same weights as open_clip reads them."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    images = CLIPImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    home = folder / "transformers" if open_clip else folder
    model.eval().save_pretrained(home)
    CLIPProcessor(images, tokenizer).save_pretrained(home)
    if open_clip:
        from pipelines.tiny.open_clip_weights import write_open_clip

        write_open_clip(folder, model, tokenizer)


if __name__ == "__main__":
    main()
