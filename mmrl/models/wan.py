"""Wan 2.1 text-to-video: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import WanPipeline
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import load_frozen, save_pipeline
from mmrl.policies.video_model import Conditioning, VideoSize


@dataclass
class WanModel:
    """The parts of a WanPipeline that sampling and replay call."""

    pipeline: WanPipeline
    size: VideoSize
    output: NetworkOutput = "velocity"
    _embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def from_pretrained(cls, path: str, size: VideoSize, *, dtype: torch.dtype) -> WanModel:
        """Load a WanPipeline folder (or hub id); everything but the transformer is frozen."""
        return cls(load_frozen(WanPipeline, path, dtype), size)

    @property
    def module(self) -> nn.Module:
        """The transformer: what is trained."""
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents."""
        time, space = (
            self.pipeline.vae_scale_factor_temporal,
            self.pipeline.vae_scale_factor_spatial,
        )
        frames = (self.size.num_frames - 1) // time + 1
        channels = self.pipeline.transformer.config.in_channels
        return channels, frames, self.size.height // space, self.size.width // space

    def to(self, device: torch.device) -> None:
        """Move every part."""
        self.pipeline.to(device)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Text embeddings as the pipeline makes them; each text is encoded once and kept."""
        new = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        if new:
            found, _ = self.pipeline.encode_prompt(
                new,
                do_classifier_free_guidance=False,
                max_sequence_length=self.size.max_sequence_length,
                device=self.pipeline.transformer.device,
            )
            self._embeddings |= dict(zip(new, found, strict=True))
        found = torch.stack([self._embeddings[text] for text in texts])
        return Conditioning({"encoder_hidden_states": found})

    def predict(
        self, x: Float[Tensor, "B C f h w"], timestep: float, conditioning: Conditioning
    ) -> Float[Tensor, "B C f h w"]:
        """v = noise - data, in float32."""
        transformer = self.pipeline.transformer
        embeddings = conditioning.tensors["encoder_hidden_states"]
        out = transformer(
            hidden_states=x.to(transformer.dtype),
            timestep=torch.full((len(x),), timestep, device=x.device),
            encoder_hidden_states=embeddings.to(transformer.dtype),
            return_dict=False,
        )
        return out[0].float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the noise levels that the pipeline's own scheduler would visit."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        self.pipeline.scheduler.set_timesteps(num_steps)
        return Schedule.flow(self.pipeline.scheduler.sigmas.double().cpu())

    def decode(self, latents: Float[Tensor, "B C f h w"]) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents * std + mean, VAE, post-processing."""
        vae = self.pipeline.vae
        shape = (1, -1, 1, 1, 1)
        mean = torch.tensor(vae.config.latents_mean, device=vae.device, dtype=vae.dtype).view(shape)
        std = torch.tensor(vae.config.latents_std, device=vae.device, dtype=vae.dtype).view(shape)
        scaled = latents.to(device=vae.device, dtype=vae.dtype) * std + mean
        video = vae.decode(scaled, return_dict=False)[0]
        processed = self.pipeline.video_processor.postprocess_video(video, output_type="pt")
        return processed.float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
