"""FLUX.1: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.image import (
    TextCache,
    as_video,
    check_image_size,
    linear_levels,
    own_schedule,
    pack,
    unpack,
)
from mmrl.models.pipeline import load_frozen, save_pipeline
from mmrl.policies.video_model import Conditioning, Latents, VideoSize


@dataclass
class FluxModel:
    """The parts of a FluxPipeline that sampling and replay call."""

    pipeline: FluxPipeline
    size: VideoSize
    embedded_guidance: float = 3.5
    """What a guidance-distilled network (FLUX.1-dev) is told; FluxPipeline's default."""
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_image_size(self.size, 2 * self.pipeline.vae_scale_factor)
        self._texts = TextCache(self._encode)

    @classmethod
    def from_pretrained(cls, path: str, size: VideoSize, *, dtype: torch.dtype) -> FluxModel:
        """Load a folder (or hub id); everything but the transformer is frozen."""
        return cls(load_frozen(FluxPipeline, path, dtype), size)

    @property
    def module(self) -> nn.Module:
        """The transformer: what is trained."""
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, one frame, height and width of one image's latents, not packed."""
        space = self.pipeline.vae_scale_factor
        channels = self.pipeline.transformer.config.in_channels // 4
        return channels, 1, self.size.height // space, self.size.width // space

    def to(self, device: torch.device) -> None:
        """Move every part."""
        self.pipeline.to(device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Embeddings of T5, and the pooled one of CLIP."""
        return self._texts(texts, self.pipeline.transformer.device)

    def _encode(self, texts: list[str]) -> Mapping[str, Float[Tensor, "B ..."]]:
        found, pooled, _ = self.pipeline.encode_prompt(
            texts,
            max_sequence_length=self.size.max_sequence_length,
            device=self.pipeline.transformer.device,
        )
        return {"encoder_hidden_states": found, "pooled_projections": pooled}

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32. The network is fed timestep / 1000 and positions."""
        transformer, height, width = self.pipeline.transformer, *x.shape[-2:]
        told = {name: v.to(transformer.dtype) for name, v in conditioning.tensors.items()}
        tokens = pack(x).to(transformer.dtype)
        fed = tokens.new_full((len(x),), timestep) / 1000
        guidance = torch.full((len(x),), self.embedded_guidance, device=x.device)
        text = told["encoder_hidden_states"]
        out = transformer(
            hidden_states=tokens,
            timestep=fed,
            guidance=guidance if transformer.config.guidance_embeds else None,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=self.pipeline._prepare_latent_image_ids(
                len(x), height // 2, width // 2, x.device, tokens.dtype
            ),
            return_dict=False,
            **told,
        )
        return unpack(out[0], height).float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own with its resolution's shift."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        _, _, height, width = self.latent_shape
        config = self.pipeline.scheduler.config
        mu = calculate_shift(
            (height // 2) * (width // 2),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        levels = linear_levels(num_steps)
        return own_schedule(self.pipeline.scheduler, num_steps, levels=levels, mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents / scale + shift, then the VAE."""
        vae = self.pipeline.vae
        codes = latents[:, :, 0].to(device=vae.device, dtype=vae.dtype)
        codes = codes / vae.config.scaling_factor + vae.config.shift_factor
        image = vae.decode(codes, return_dict=False)[0]
        return as_video(self.pipeline.image_processor.postprocess(image, output_type="pt"))

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
