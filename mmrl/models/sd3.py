"""Stable Diffusion 3 and 3.5: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.image import as_video, check_image_size, image_codes
from mmrl.models.pipeline import save_pipeline
from mmrl.models.schedule import own_schedule, shift_by_tokens
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class Sd3Model:
    """The parts of a StableDiffusion3Pipeline that sampling and replay call."""

    pipeline: StableDiffusion3Pipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_image_size(self.size, self.pipeline.vae_scale_factor * self.pipeline.patch_size)
        self._texts = TextCache(self._encode, self.pipeline, self.size, self.texts)

    @property
    def module(self) -> nn.Module:
        """The transformer: what is trained."""
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, one frame, height and width of one image's latents."""
        space = self.pipeline.vae_scale_factor
        channels = self.pipeline.transformer.config.in_channels
        return channels, 1, self.size.height // space, self.size.width // space

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Embeddings of two CLIPs and T5, and the CLIPs' pooled ones."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Float[Tensor, "1 ..."]]:
        found, _, pooled, _ = self.pipeline.encode_prompt(
            text,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.size.max_sequence_length,
            device=self.pipeline.transformer.device,
        )
        return {"encoder_hidden_states": found, "pooled_projections": pooled}

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32."""
        transformer = self.pipeline.transformer
        told = {name: v.to(transformer.dtype) for name, v in conditioning.tensors.items()}
        out = transformer(
            hidden_states=x[:, :, 0].to(transformer.dtype),
            timestep=torch.full((len(x),), timestep, device=x.device),
            return_dict=False,
            **told,
        )
        return out[0][:, :, None].float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own, whose shift may depend on the resolution."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        scheduler = self.pipeline.scheduler
        mu = self._mu() if scheduler.config.get("use_dynamic_shifting") else None
        return own_schedule(scheduler, num_steps, levels=None, mu=mu)

    def _mu(self) -> float:
        _, _, height, width = self.latent_shape
        patch = self.pipeline.transformer.config.patch_size
        tokens = (height // patch) * (width // patch)
        return shift_by_tokens(self.pipeline.scheduler, tokens, max_shift=1.16)

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
