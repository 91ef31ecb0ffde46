"""FLUX.2, dev and klein: the real diffusers pipelines as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.image import as_video, check_image_size, image_codes
from mmrl.models.pipeline import save_pipeline
from mmrl.models.schedule import linear_levels, own_schedule
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class Flux2Model:
    """The parts of a Flux2Pipeline (dev) or Flux2KleinPipeline that sampling and replay call.

    Latents are the network's own: patches of 2 x 2 VAE codes as channels, normalised by the VAE's
    batch norm.
    """

    pipeline: Flux2Pipeline | Flux2KleinPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    embedded_guidance: float = 4.0
    """What dev's network is told, Flux2Pipeline's default; klein's is told none."""
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
        """Channels, one frame, height and width of one image's patches."""
        space = 2 * self.pipeline.vae_scale_factor
        channels = self.pipeline.transformer.config.in_channels
        return channels, 1, self.size.height // space, self.size.width // space

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Hidden states of three layers of the language model, side by side."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Float[Tensor, "1 ..."]]:
        found, _ = self.pipeline.encode_prompt(
            text,
            max_sequence_length=self.size.max_sequence_length,
            device=self.pipeline.transformer.device,
        )
        return {"encoder_hidden_states": found}

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32. The network is fed timestep / 1000 and positions."""
        transformer = self.pipeline.transformer
        text = conditioning.tensors["encoder_hidden_states"].to(transformer.dtype)
        tokens = rearrange(x, "b c 1 h w -> b (h w) c").to(transformer.dtype)
        guidance = torch.full((len(x),), self.embedded_guidance, device=x.device)
        out = transformer(
            hidden_states=tokens,
            timestep=tokens.new_full((len(x),), timestep) / 1000,
            guidance=guidance if isinstance(self.pipeline, Flux2Pipeline) else None,
            encoder_hidden_states=text,
            txt_ids=self.pipeline._prepare_text_ids(text).to(x.device),
            img_ids=self.pipeline._prepare_latent_ids(x[:, :, 0]).to(x.device),
            return_dict=False,
        )
        return rearrange(out[0], "b (h w) c -> b c 1 h w", h=x.shape[-2]).float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own: its shift knows the resolution and the steps."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        _, _, height, width = self.latent_shape
        mu = compute_empirical_mu(image_seq_len=height * width, num_steps=num_steps)
        levels = linear_levels(num_steps)
        return own_schedule(self.pipeline.scheduler, num_steps, levels=levels, mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: batch norm undone, patches apart, VAE."""
        vae = self.pipeline.vae
        codes = latents[:, :, 0].to(device=vae.device, dtype=vae.dtype)
        mean, std = self._patch_moments()
        codes = self.pipeline._unpatchify_latents(codes * std + mean)
        image = vae.decode(codes, return_dict=False)[0]
        return as_video(self.pipeline.image_processor.postprocess(image, output_type="pt"))

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """Patches of the mode of the VAE's posterior, normalised by its batch norm."""
        mean, std = self._patch_moments()
        patches = self.pipeline._patchify_latents(image_codes(self.pipeline.vae, videos))
        return ((patches - mean) / std)[:, :, None].float()

    def _patch_moments(self) -> tuple[Float[Tensor, "1 C 1 1"], Float[Tensor, "1 C 1 1"]]:
        vae = self.pipeline.vae
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(vae.dtype)
        std = (vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).sqrt()
        return mean, std.to(vae.dtype)

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
