"""LTX-2's pipeline, small and with random weights, and how its state is laid out."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from torch import Tensor

from tests.models.tiny_parts import WORDS, tokenizer

MEAN, STD = (0.1, -0.2, 0.3, 0.0), (1.0, 0.5, 2.0, 1.5)
"""Of the video's latents."""
VIDEO_TOKENS, SIDE = 48, 4
"""3 latent frames of 4 x 4, of 5 frames of 32 x 32 pixels."""


def gemma():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
    }
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))


def video_vae():
    from diffusers import AutoencoderKLLTX2Video

    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_type=("spatiotemporal",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        spatial_compression_ratio=8,
        temporal_compression_ratio=2,
    )
    vae.latents_mean.copy_(torch.tensor(MEAN))
    vae.latents_std.copy_(torch.tensor(STD))
    return vae


def sound():
    """Audio VAE and vocoder of 2 latent channels and 2 latent mel bins: tokens 4 wide."""
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    vae = AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=8,
        latent_channels=2,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=4,
        upsample_kernel_sizes=[4],
        upsample_factors=[2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
    )
    return vae, vocoder


def ltx2() -> DiffusionPipeline:
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline, LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        vae_scale_factors=(2, 8, 8),
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=1,
        caption_channels=8,
    )
    connectors = LTX2TextConnectors(
        caption_channels=8,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=4,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=4,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=4,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=4,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        shift_terminal=0.1,
    )
    audio_vae, vocoder = sound()
    return LTX2Pipeline(
        scheduler=scheduler,
        vae=video_vae(),
        audio_vae=audio_vae,
        text_encoder=gemma(),
        tokenizer=tokenizer(),
        connectors=connectors,
        transformer=transformer,
        vocoder=vocoder,
    )


def guided_alike(pipeline: DiffusionPipeline, guidance: float) -> dict[str, object]:
    """One guidance for both streams, and none of the pipeline's other three."""
    found: dict[str, object] = {"max_sequence_length": 8}
    for stream in ("", "audio_"):
        found[f"{stream}guidance_scale"] = guidance
        found[f"{stream}stg_scale"] = 0.0
        found[f"{stream}modality_scale"] = 1.0
        found[f"{stream}guidance_rescale"] = 0.0
    return found


def streams(state: Tensor) -> dict[str, Tensor]:
    """What the call takes, as packed tokens."""
    tokens = rearrange(state, "b c s 1 1 -> b s c")
    return {"latents": tokens[:, :VIDEO_TOKENS], "audio_latents": tokens[:, VIDEO_TOKENS:]}


def state_of(output) -> Tensor:
    """The state out of what the call returns: the video's latents are not normalised there."""
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (MEAN, STD))
    video = rearrange((output.frames - mean) / std, "b c f h w -> b c (f h w) 1 1")
    return torch.cat([video, rearrange(output.audio, "b c l m -> b (c m) l 1 1")], dim=2)
