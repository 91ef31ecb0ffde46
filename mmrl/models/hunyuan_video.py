"""HunyuanVideo text-to-video: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import HunyuanVideoPipeline
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline, video_codes
from mmrl.models.schedule import linear_levels, own_schedule
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class HunyuanVideoModel:
    """The parts of a HunyuanVideoPipeline that sampling and replay call."""

    pipeline: HunyuanVideoPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    embedded_guidance: float = 6.0
    """What the guidance-distilled network is told; HunyuanVideoPipeline's default.

    The policy's own guidance is a second one on top, the pipeline's `true_cfg_scale`.
    """
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
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
            pipeline.transformer.config.in_channels,
            time=pipeline.vae_scale_factor_temporal,
            space=pipeline.vae_scale_factor_spatial,
        )

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Llama's embeddings behind the template and their mask, and CLIP's pooled one."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Shaped[Tensor, "1 ..."]]:
        found, pooled, mask = self.pipeline.encode_prompt(
            text,
            device=self.pipeline.transformer.device,
            max_sequence_length=self.size.max_sequence_length,
        )
        return {
            "encoder_hidden_states": found,
            "encoder_attention_mask": mask,
            "pooled_projections": pooled,
        }

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32. The embedded guidance is fed times 1000."""
        transformer = self.pipeline.transformer
        told = {name: v.to(transformer.dtype) for name, v in conditioning.tensors.items()}
        state = x.to(transformer.dtype)
        out = transformer(
            hidden_states=state,
            timestep=torch.full((len(x),), timestep, device=x.device),
            guidance=state.new_full((len(x),), self.embedded_guidance) * 1000,
            return_dict=False,
            **told,
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
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
