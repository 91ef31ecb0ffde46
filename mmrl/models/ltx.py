"""LTX-Video: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import LTXPipeline
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline, video_codes
from mmrl.models.schedule import linear_levels, own_schedule, shift_by_tokens
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class LtxModel:
    """The parts of an LTXPipeline that sampling and replay call."""

    pipeline: LTXPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    frame_rate: float = 25.0
    """Frames a second that the positions tell the network of; LTXPipeline's default."""
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_video_size(
            self.size,
            self.pipeline.transformer.config,
            time=self.pipeline.vae_temporal_compression_ratio,
            space=self.pipeline.vae_spatial_compression_ratio,
        )
        self._texts = TextCache(self._encode, self.pipeline, self.size, self.texts)

    @property
    def module(self) -> nn.Module:
        """The transformer: what is trained."""
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents, not packed."""
        pipeline = self.pipeline
        return latent_grid(
            self.size,
            pipeline.transformer.config.in_channels,
            time=pipeline.vae_temporal_compression_ratio,
            space=pipeline.vae_spatial_compression_ratio,
        )

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """T5's embeddings and their mask."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Shaped[Tensor, "1 ..."]]:
        found, mask, _, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.size.max_sequence_length,
            device=self.pipeline.transformer.device,
        )
        return {"encoder_hidden_states": found, "encoder_attention_mask": mask}

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32. Every latent pixel is a token; positions are in seconds."""
        transformer, (frames, height, width) = self.pipeline.transformer, x.shape[2:]
        time = self.pipeline.vae_temporal_compression_ratio / self.frame_rate
        space = self.pipeline.vae_spatial_compression_ratio
        out = transformer(
            hidden_states=pack(x).to(transformer.dtype),
            encoder_hidden_states=conditioning.tensors["encoder_hidden_states"].to(
                transformer.dtype
            ),
            encoder_attention_mask=conditioning.tensors["encoder_attention_mask"],
            timestep=torch.full((len(x),), timestep, device=x.device),
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(time, space, space),
            return_dict=False,
        )
        return unpack(out[0], height, width).float()

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own, whose shift depends on the number of tokens."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        _, frames, height, width = self.latent_shape
        scheduler = self.pipeline.scheduler
        mu = shift_by_tokens(scheduler, frames * height * width)
        return own_schedule(scheduler, num_steps, levels=linear_levels(num_steps), mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents * std / scale + mean, VAE.

        A VAE that also denoises (0.9.1 and later) is told timestep 0, the pipeline's default.
        """
        vae = self.pipeline.vae
        codes = self.pipeline._denormalize_latents(
            latents.to(vae.device), vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        ).to(vae.dtype)
        timestep = codes.new_zeros(len(codes)) if vae.config.timestep_conditioning else None
        return decode_video(self.pipeline, codes, timestep)

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """(mode of the VAE's posterior - mean) * scale / std, of RGB in [0, 1]."""
        vae, codes = self.pipeline.vae, video_codes(self.pipeline, videos)
        mean, std = (x.view(1, -1, 1, 1, 1).to(codes) for x in (vae.latents_mean, vae.latents_std))
        return ((codes - mean) * vae.config.scaling_factor / std).float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)


def pack(latents: Latents) -> Float[Tensor, "B S C"]:
    """A token a latent pixel, frame by frame."""
    return rearrange(latents, "b c f h w -> b (f h w) c")


def unpack(tokens: Float[Tensor, "B S C"], height: int, width: int) -> Latents:
    """The inverse of `pack`."""
    return rearrange(tokens, "b (f h w) c -> b c f h w", h=height, w=width)
