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
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.image import as_video, check_image_size, image_codes, pack, unpack
from mmrl.models.pipeline import save_pipeline
from mmrl.models.schedule import linear_levels, own_schedule, shift_by_tokens
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class FluxModel:
    """The parts of a FluxPipeline that sampling and replay call."""

    pipeline: FluxPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    embedded_guidance: float = 3.5
    """What a guidance-distilled network (FLUX.1-dev) is told; FluxPipeline's default."""
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_image_size(self.size, 2 * self.pipeline.vae_scale_factor)
        self._texts = TextCache(self._encode, self.pipeline, self.size, self.texts)

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
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Embeddings of T5, and the pooled one of CLIP."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Float[Tensor, "1 ..."]]:
        found, pooled, _ = self.pipeline.encode_prompt(
            text,
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
        scheduler = self.pipeline.scheduler
        mu = shift_by_tokens(scheduler, (height // 2) * (width // 2))
        return own_schedule(scheduler, num_steps, levels=linear_levels(num_steps), mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents / scale + shift, then the VAE."""
        vae = self.pipeline.vae
        codes = latents[:, :, 0].to(device=vae.device, dtype=vae.dtype)
        codes = codes / vae.config.scaling_factor + vae.config.shift_factor
        image = vae.decode(codes, return_dict=False)[0]
        return as_video(self.pipeline.image_processor.postprocess(image, output_type="pt"))

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """(mode of the VAE's posterior - shift) * scale, of RGB in [0, 1]."""
        config = self.pipeline.vae.config
        codes = image_codes(self.pipeline.vae, videos) - config.shift_factor
        return (codes * config.scaling_factor)[:, :, None].float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
