"""CogVideoX and 1.5, text-to-video: the real diffusers pipeline as encode, v and decode.

A DDPM model that predicts v = sqrt(a) eps - sqrt(1 - a) x0 (arXiv:2408.06072, section 2.3).
"""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import CogVideoXPipeline
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class CogVideoXModel:
    """The parts of a CogVideoXPipeline that sampling and replay call."""

    pipeline: CogVideoXPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    output: NetworkOutput = "v_prediction"
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
        """Channels, frames, height and width of one video's latents, 1.5's first ones included."""
        channels, frames, height, width = self._shown
        return channels, frames + self._frames_ahead, height, width

    @property
    def _shown(self) -> tuple[int, int, int, int]:
        pipeline = self.pipeline
        return latent_grid(
            self.size,
            pipeline.transformer.config.in_channels,
            time=pipeline.vae_scale_factor_temporal,
            space=pipeline.vae_scale_factor_spatial,
        )

    @property
    def _frames_ahead(self) -> int:
        """Latent frames that fill 1.5's temporal patches; denoised, then dropped."""
        return -self._shown[1] % (self.pipeline.transformer.config.patch_size_t or 1)

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """T5's embeddings, padding included as in training."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Float[Tensor, "1 ..."]]:
        found, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.size.max_sequence_length,
            device=self.pipeline.transformer.device,
        )
        return {"encoder_hidden_states": found}

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v in float32, of an integer timestep. The network has frames before channels."""
        transformer = self.pipeline.transformer
        embeddings = conditioning.tensors["encoder_hidden_states"]
        out = transformer(
            hidden_states=rearrange(x, "b c f h w -> b f c h w").to(transformer.dtype),
            encoder_hidden_states=embeddings.to(transformer.dtype),
            timestep=torch.full((len(x),), int(timestep), device=x.device),
            image_rotary_emb=self._positions(x),
            return_dict=False,
        )
        return rearrange(out[0], "b f c h w -> b c f h w").float()

    def _positions(self, x: Latents) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of the rotary embedding; the 2B model has none."""
        if not self.pipeline.transformer.config.use_rotary_positional_embeddings:
            return None
        return self.pipeline._prepare_rotary_positional_embeddings(
            self.size.height, self.size.width, x.shape[2], x.device
        )

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """Alpha-bars of the timesteps that the pipeline's own scheduler visits, then its last."""
        if shift is not None:
            raise ConfigError(
                f"CogVideoX has no shift to set, got {shift}; null takes its own noise levels",
                key="sampling.shift",
            )
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(num_steps)
        timesteps = scheduler.timesteps.cpu()
        levels = scheduler.alphas_cumprod[timesteps].double()
        last = scheduler.final_alpha_cumprod.double()
        return Schedule(torch.cat([levels, last[None]]), timesteps.double())

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents / scale, VAE, post-processing."""
        vae = self.pipeline.vae
        shown = latents[:, :, self._frames_ahead :].to(device=vae.device, dtype=vae.dtype)
        return decode_video(self.pipeline, shown / self.pipeline.vae_scaling_factor_image)

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
