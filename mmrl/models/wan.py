"""Wan 2.1 and 2.2 text-to-video: the real diffusers pipeline as encode, velocity and decode."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline, video_codes, wan_moments
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


class Experts(nn.ModuleDict):
    """Wan 2.2 A14B's two denoisers as one module: both are trained, each on its noise levels."""

    def add_adapter(self, config: object) -> None:
        """The same kind of adapter in both."""
        for expert in self.values():
            expert.add_adapter(config)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations of both in the backward pass."""
        for expert in self.values():
            expert.enable_gradient_checkpointing()

    def compile(self) -> None:
        """torch.compile both: this module's own forward is never called."""
        for expert in self.values():
            expert.compile()


@dataclass
class WanModel:
    """The parts of a WanPipeline that sampling and replay call."""

    pipeline: WanPipeline | WanImageToVideoPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    output: NetworkOutput = "velocity"
    module: nn.Module = field(init=False, repr=False)
    """What is trained: the transformer, or both experts."""
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        first, second = self.pipeline.transformer, self.pipeline.transformer_2
        both = {"transformer": first, "transformer_2": second}
        self.module = first if second is None else Experts(both)
        check_video_size(
            self.size,
            self.pipeline.transformer.config,
            time=self.pipeline.vae_scale_factor_temporal,
            space=self.pipeline.vae_scale_factor_spatial,
        )
        self._texts = TextCache(self._encode, self.pipeline, self.size, self.texts)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents."""
        pipeline = self.pipeline
        return latent_grid(
            self.size,
            pipeline.vae.config.z_dim,
            time=pipeline.vae_scale_factor_temporal,
            space=pipeline.vae_scale_factor_spatial,
        )

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """UMT5's embeddings, zero behind the text."""
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
        """v = noise - data, in float32.

        2.2's 5B model reads a timestep for every token; without a first frame they are all equal,
        and one for all is the same.
        """
        fed = torch.full((len(x),), timestep, device=x.device)
        return velocity(self.expert(timestep), x, fed, conditioning.tensors)

    def expert(self, timestep: float) -> WanTransformer3DModel:
        """The denoiser of a noise level: A14B's second one is for those below the boundary."""
        pipeline = self.pipeline
        if pipeline.transformer_2 is None:
            return pipeline.transformer
        boundary = pipeline.config.boundary_ratio * pipeline.scheduler.config.num_train_timesteps
        return pipeline.transformer if timestep >= boundary else pipeline.transformer_2

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the noise levels that the pipeline's own scheduler would visit."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        self.pipeline.scheduler.set_timesteps(num_steps)
        return Schedule.flow(self.pipeline.scheduler.sigmas.double().cpu())

    def decode(self, latents: Float[Tensor, "B C f h w"]) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule: latents * std + mean, VAE, post-processing."""
        vae = self.pipeline.vae
        mean, std = wan_moments(vae)
        scaled = latents.to(device=vae.device, dtype=vae.dtype) * std + mean
        return decode_video(self.pipeline, scaled)

    @torch.no_grad()
    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B C f h w"]:
        """(mode of the VAE's posterior - mean) / std, of RGB in [0, 1]."""
        mean, std = wan_moments(self.pipeline.vae)
        return ((video_codes(self.pipeline, videos) - mean) / std).float()

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)


def velocity(
    network: WanTransformer3DModel,
    state: Float[Tensor, "B S f h w"],
    timesteps: Float[Tensor, "B ..."],
    told: Mapping[str, Float[Tensor, "B ..."]],
) -> Latents:
    """v of one denoiser in float32; `timesteps` of each video, or of each of its tokens.

    `state` has the latents' channels S = C, or those of an image's condition behind them.
    """
    out = network(
        hidden_states=state.to(network.dtype),
        timestep=timesteps,
        return_dict=False,
        **{name: value.to(network.dtype) for name, value in told.items()},
    )
    return out[0].float()
