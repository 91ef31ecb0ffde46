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
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

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
class QwenImageModel:
    """The parts of a QwenImagePipeline that sampling and replay call."""

    pipeline: QwenImagePipeline
    size: VideoSize
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_image_size(self.size, 2 * self.pipeline.vae_scale_factor)
        self._texts = TextCache(self._encode)

    @classmethod
    def from_pretrained(cls, path: str, size: VideoSize, *, dtype: torch.dtype) -> QwenImageModel:
        """Load a folder (or hub id); everything but the transformer is frozen."""
        return cls(load_frozen(QwenImagePipeline, path, dtype), size)

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
        """Last hidden states of Qwen2.5-VL after the template's instruction, and which are text."""
        return self._texts(texts, self.pipeline.transformer.device)

    def _encode(self, texts: list[str]) -> Mapping[str, Shaped[Tensor, "B ..."]]:
        """One text at a time: a text's embedding does not depend on the length of another."""
        length, states, masks = self.size.max_sequence_length, [], []
        for text in texts:
            found, _ = self.pipeline.encode_prompt(
                text, device=self.pipeline.transformer.device, max_sequence_length=length
            )
            missing = length - found.shape[1]
            states.append(pad(found, (0, 0, 0, missing)))
            masks.append(torch.arange(length, device=found.device)[None] < found.shape[1])
        return {
            "encoder_hidden_states": torch.cat(states),
            "encoder_hidden_states_mask": torch.cat(masks),
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
        """RGB in [0, 1] by the pipeline's own rule: latents * std + mean, VAE, post-processing."""
        vae = self.pipeline.vae
        codes = latents.to(device=vae.device, dtype=vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(codes)
        scale = 1 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(codes)
        image = vae.decode(codes / scale + mean, return_dict=False)[0][:, :, 0]
        return as_video(self.pipeline.image_processor.postprocess(image, output_type="pt"))

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
