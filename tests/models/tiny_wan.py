"""Wan pipelines of every kind, small and with random weights."""

from __future__ import annotations

import diffusers
from diffusers import DiffusionPipeline

from tests.models.tiny_parts import WORDS, tokenizer


def wan_vae(*, residual: bool):
    """2.1's VAE, or the 5B model's residual one on patches of 2 x 2 pixels."""
    from diffusers import AutoencoderKLWan

    patches = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 0.5, 2.0, 1.5],
        scale_factor_temporal=2,
        scale_factor_spatial=4 if residual else 2,
        **(patches if residual else {}),
    )


def wan_transformer(in_channels: int = 4, image_dim: int | None = None):
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
        image_dim=image_dim,
        added_kv_proj_dim=None if image_dim is None else 24,
        rope_max_seq_len=16,
    )


def wan_parts() -> dict[str, object]:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    text = UMT5Config(vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return {
        "tokenizer": tokenizer(),
        "text_encoder": UMT5EncoderModel(text),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def wan22_5b(pipeline: str = "WanPipeline") -> DiffusionPipeline:
    return getattr(diffusers, pipeline)(
        **wan_parts(),
        vae=wan_vae(residual=True),
        transformer=wan_transformer(),
        expand_timesteps=True,
    )


def wan22_a14b(pipeline: str = "WanPipeline", in_channels: int = 4) -> DiffusionPipeline:
    """Both experts have steps of the grid of STEPS."""
    return getattr(diffusers, pipeline)(
        **wan_parts(),
        vae=wan_vae(residual=False),
        transformer=wan_transformer(in_channels),
        transformer_2=wan_transformer(in_channels),
        boundary_ratio=0.8,
    )


def wan21_i2v() -> DiffusionPipeline:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    clip = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=4,
        patch_size=2,
    )
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(),
        vae=wan_vae(residual=False),
        transformer=wan_transformer(10, image_dim=8),
        image_encoder=CLIPVisionModel(clip),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 4}, crop_size=4),
    )
