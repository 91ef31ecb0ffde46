"""Train assets/tiny-wan, moving digits: `python -m pipelines.tiny.wan VAE_FOLDER`.

Captions are noisy as web captions are: each attribute is replaced by a random one in a third of
the videos. The model draws clean digits and follows its prompt only in part, which leaves
alignment something to do.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import mmrl.torchvision_fix  # noqa: F401
from pipelines.tiny.wan_vae import LATENT_CHANNELS, to_vae
from pipelines.tiny.world import (
    COLOURS,
    DIGITS,
    DIRECTIONS,
    Combination,
    choose,
    combinations,
    draw,
    write_prompts,
)

ASSETS = Path("assets")
STEPS, BATCH, LR = 2000, 32, 1e-3
VIDEOS = 6000
SHIFT = 3.0
TEXT_WIDTH, TEXT_LENGTH = 64, 8
CAPTION_NOISE = 1 / 3
CAPTION_DROP = 0.1
"""Share of empty captions, for classifier-free guidance."""


def main(vae_folder: Path) -> None:
    """Encode the videos once, fit text encoder and transformer together, save the pipeline."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    vae = AutoencoderKLWan.from_pretrained(vae_folder).eval()
    chosen = choose(combinations(held_out=False), VIDEOS, generator)
    latents = encode(vae, draw(chosen, held_out=False, generator=generator))
    captions = [noisy(one, generator).caption for one in chosen]
    tokenizer = build_tokenizer()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        transformer=build_transformer(),
    )
    fit(pipeline, latents, captions, generator)
    pipeline.to(torch.float16)
    pipeline.save_pretrained(ASSETS / "tiny-wan", safe_serialization=True)
    drop_origin(ASSETS / "tiny-wan/vae/config.json")
    write_prompts(ASSETS / "prompts")


def drop_origin(config: Path) -> None:
    """Forget the folder that a part was loaded from."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields.pop("_name_or_path", None)
    config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def noisy(one: Combination, generator: torch.Generator) -> Combination:
    """Each attribute replaced by a random one with probability CAPTION_NOISE."""
    drawn = {
        "digit": torch.randint(10, (), generator=generator).item(),
        "colour": list(COLOURS)[torch.randint(4, (), generator=generator)],
        "direction": list(DIRECTIONS)[torch.randint(4, (), generator=generator)],
    }
    swap = torch.rand(3, generator=generator) < CAPTION_NOISE
    changed = {name: value for (name, value), s in zip(drawn.items(), swap, strict=True) if s}
    return replace(one, **changed)


@torch.no_grad()
def encode(vae, videos: torch.Tensor) -> torch.Tensor:
    """Latents as the pipeline's own denoising sees them: (z - mean) / std."""
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    std = torch.tensor(vae.config.latents_std).view(shape)
    parts = [
        vae.encode(to_vae(part)).latent_dist.mean
        for part in track(videos.split(64), description="encode")
    ]
    return (torch.cat(parts) - mean) / std


def build_tokenizer():
    """One token a word, </s> at the end, <pad> after it."""
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "moving", *COLOURS, *DIGITS, *DIRECTIONS]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def build_text_encoder(vocabulary: int):
    """A one-layer UMT5 encoder."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def build_transformer():
    """0.96 M parameters over 80 tokens."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=256,
        num_layers=4,
        rope_max_seq_len=32,
    )


def fit(pipeline, latents: torch.Tensor, captions: list[str], generator: torch.Generator) -> None:
    """Flow matching: predict noise - data at logit-normal noise levels, shifted as in sampling."""
    learning = [*pipeline.text_encoder.parameters(), *pipeline.transformer.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.05)
    ids = pipeline.tokenizer(
        captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
    )
    empty = pipeline.tokenizer(
        [""], padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
    )
    for _ in track(range(STEPS), description="Wan transformer"):
        rows = torch.randint(len(latents), (BATCH,), generator=generator)
        dropped = (torch.rand(BATCH, generator=generator) < CAPTION_DROP)[:, None]
        tokens = torch.where(dropped, empty.input_ids, ids.input_ids[rows])
        mask = torch.where(dropped, empty.attention_mask, ids.attention_mask[rows])
        text = pipeline.text_encoder(tokens, mask).last_hidden_state * mask[..., None]
        noise = torch.randn(latents[rows].shape, generator=generator)
        u = torch.sigmoid(torch.randn(BATCH, generator=generator))
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        level = sigma.view(-1, 1, 1, 1, 1)
        velocity = pipeline.transformer(
            hidden_states=(1 - level) * latents[rows] + level * noise,
            timestep=1000 * sigma,
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
        loss = (velocity - (noise - latents[rows])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
