"""HunyuanVideo 1.5 text-to-video: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import HunyuanVideo15Pipeline
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline, video_codes
from mmrl.models.schedule import linear_levels, own_schedule
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize

NAMES = (
    "encoder_hidden_states",
    "encoder_attention_mask",
    "encoder_hidden_states_2",
    "encoder_attention_mask_2",
)
"""Qwen2.5-VL's reading of the prompt, then ByT5's of the words in quotes."""


@dataclass
class HunyuanVideo15Model:
    """The parts of a HunyuanVideo15Pipeline that sampling and replay call."""

    pipeline: HunyuanVideo15Pipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.pipeline.vae.enable_slicing()  # its causal mask fits one video at a time
        check_video_size(
            self.size,
            self.pipeline.transformer.config,
            time=self.pipeline.vae_scale_factor_temporal,
            space=self.pipeline.vae_scale_factor_spatial,
        )
        self._texts = TextCache(self._encode, self.pipeline, self.size, self.texts)

    @property
    def module(self) -> nn.Module:
        """The transformer: what is trained."""
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents."""
        pipeline = self.pipeline
        return latent_grid(
            self.size,
            pipeline.num_channels_latents,
            time=pipeline.vae_scale_factor_temporal,
            space=pipeline.vae_scale_factor_spatial,
        )

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Embeddings and masks of both text encoders."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Shaped[Tensor, "1 ..."]]:
        transformer = self.pipeline.transformer
        self.pipeline.tokenizer_max_length = self.size.max_sequence_length  # no argument of a call
        found = self.pipeline.encode_prompt(
            text, device=transformer.device, dtype=transformer.dtype, batch_size=1
        )
        return dict(zip(NAMES, found, strict=True))

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32.

        Without a first frame the network sees zeros for its latents and mask. Zero image tokens
        are masked out, so that one stands for the pipeline's 729.
        """
        transformer = self.pipeline.transformer
        state = x.to(transformer.dtype)
        no_frame = torch.zeros_like(torch.cat([state, state[:, :1]], dim=1))
        out = transformer(
            hidden_states=torch.cat([state, no_frame], dim=1),
            timestep=state.new_full((len(x),), timestep),
            image_embeds=state.new_zeros(len(x), 1, self.pipeline.vision_states_dim),
            return_dict=False,
            **conditioning.tensors,
        )
        return out[0].float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the noise levels that the pipeline's own scheduler would visit."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        levels = linear_levels(num_steps)
        return own_schedule(self.pipeline.scheduler, num_steps, levels=levels, mu=None)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents / scale, VAE, post-processing."""
        vae = self.pipeline.vae
        codes = latents.to(device=vae.device, dtype=vae.dtype) / vae.config.scaling_factor
        return decode_video(self.pipeline, codes)

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """Mode of the VAE's posterior * scale, of RGB in [0, 1]."""
        scale = self.pipeline.vae.config.scaling_factor
        return (video_codes(self.pipeline, videos) * scale).float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the transformer's adapter."""
        save_pipeline(self.pipeline, folder)
