"""Qwen-Image: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import QwenImagePipeline
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.image import as_video, check_image_size, pack, unpack
from mmrl.models.pipeline import save_pipeline, video_codes, wan_moments
from mmrl.models.schedule import linear_levels, own_schedule, shift_by_tokens
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class QwenImageModel:
    """The parts of a QwenImagePipeline that sampling and replay call."""

    pipeline: QwenImagePipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
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
        """Last hidden states of Qwen2.5-VL after the template's instruction, and which are text."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Shaped[Tensor, "1 ..."]]:
        length = self.size.max_sequence_length
        found, _ = self.pipeline.encode_prompt(
            text, device=self.pipeline.transformer.device, max_sequence_length=length
        )
        read = found.shape[1]
        return {
            "encoder_hidden_states": pad(found, (0, 0, 0, length - read)),
            "encoder_hidden_states_mask": torch.arange(length, device=found.device)[None] < read,
        }

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32. The network is fed timestep / 1000 and the grid's size."""
        transformer, height, width = self.pipeline.transformer, *x.shape[-2:]
        tokens = pack(x).to(transformer.dtype)
        out = transformer(
            hidden_states=tokens,
            timestep=tokens.new_full((len(x),), timestep) / 1000,
            encoder_hidden_states=conditioning.tensors["encoder_hidden_states"].to(tokens.dtype),
            encoder_hidden_states_mask=conditioning.tensors["encoder_hidden_states_mask"],
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )
        return unpack(out[0], height).float()

    def guide(self, without: Latents, given: Latents, guidance: float) -> Latents:
        """without + guidance (given - without), every token scaled to the norm of the given one."""
        ahead, height = pack(given), given.shape[-2]
        mixed = pack(without) + guidance * (ahead - pack(without))
        scale = ahead.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True)
        return unpack(mixed * scale, height)

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own with its resolution's shift."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        _, _, height, width = self.latent_shape
        scheduler = self.pipeline.scheduler
        mu = shift_by_tokens(scheduler, (height // 2) * (width // 2))
        return own_schedule(scheduler, num_steps, levels=linear_levels(num_steps), mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents * std + mean, VAE, post-processing."""
        vae = self.pipeline.vae
        codes = latents.to(device=vae.device, dtype=vae.dtype)
        mean, std = wan_moments(vae)
        image = vae.decode(codes * std + mean, return_dict=False)[0][:, :, 0]
        return as_video(self.pipeline.image_processor.postprocess(image, output_type="pt"))

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """(mode of the VAE's posterior - mean) / std, of RGB in [0, 1]."""
        mean, std = wan_moments(self.pipeline.vae)
        return ((video_codes(self.pipeline, videos) - mean) / std).float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
