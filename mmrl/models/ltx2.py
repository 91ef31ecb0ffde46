"""LTX-2, video with sound: the real diffusers pipeline as encode, velocity and decode.

The network denoises video and audio together, and each hears of the other. The state is the row of
all tokens, video first: `B C S 1 1`. Both streams are actions; the decoded sample is the video.
"""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import LTX2Pipeline
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.pipeline import decode_video, latent_grid, save_pipeline
from mmrl.models.schedule import linear_levels, own_schedule, shift_by_tokens
from mmrl.models.size import check_video_size
from mmrl.models.text_cache import TextCache, move_pipeline
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize


@dataclass
class Ltx2Model:
    """The parts of an LTX2Pipeline that sampling and replay call.

    Guidance is the policy's one number for both streams; spatio-temporal guidance, modality
    isolation and rescaling, on by default in the pipeline's own call, are left out.
    """

    pipeline: LTX2Pipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    frame_rate: float = 24.0
    """Frames a second: positions of the video, and length of the audio. LTX2Pipeline's default."""
    output: NetworkOutput = "velocity"
    _texts: TextCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        config = self.pipeline.transformer.config
        if config.in_channels != config.audio_in_channels:
            raise ConfigError(
                f"video tokens have {config.in_channels} channels and audio tokens "
                f"{config.audio_in_channels}: they do not fit one row of tokens",
                key="model",
            )
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
        """Channels, tokens of video and audio, 1 and 1."""
        channels, frames, height, width = self.video_shape
        return channels, frames * height * width + self.audio_frames, 1, 1

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents."""
        pipeline = self.pipeline
        return latent_grid(
            self.size,
            pipeline.transformer.config.in_channels,
            time=pipeline.vae_temporal_compression_ratio,
            space=pipeline.vae_spatial_compression_ratio,
        )

    @property
    def audio_frames(self) -> int:
        """Audio tokens: latent frames of a sound as long as the video."""
        pipeline = self.pipeline
        mel_frames = pipeline.audio_sampling_rate / pipeline.audio_hop_length
        a_second = mel_frames / float(pipeline.audio_vae_temporal_compression_ratio)
        return round(self.size.num_frames / self.frame_rate * a_second)

    def to(self, device: torch.device) -> None:
        """Move every part."""
        move_pipeline(self.pipeline, self.texts, device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Gemma's layers through the connectors of video and audio, and the mask of both."""
        return self._texts(texts)

    def _encode(self, text: str) -> Mapping[str, Shaped[Tensor, "B ..."]]:
        pipeline = self.pipeline
        found, mask, _, _ = pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.size.max_sequence_length,
            device=pipeline.transformer.device,
        )
        side = pipeline.tokenizer.padding_side
        video, audio, mask = pipeline.connectors(found, mask, padding_side=side)
        return {
            "encoder_hidden_states": video,
            "audio_encoder_hidden_states": audio,
            "encoder_attention_mask": mask,
            "audio_encoder_attention_mask": mask,
        }

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data of video and audio tokens, in float32."""
        transformer, (_, frames, height, width) = self.pipeline.transformer, self.video_shape
        tokens = rearrange(x, "b c s 1 1 -> b s c").to(transformer.dtype)
        fed = torch.full((len(x),), timestep, device=x.device)
        video, audio = transformer(
            hidden_states=tokens[:, : frames * height * width],
            audio_hidden_states=tokens[:, frames * height * width :],
            timestep=fed,
            sigma=fed,
            num_frames=frames,
            height=height,
            width=width,
            fps=self.frame_rate,
            audio_num_frames=self.audio_frames,
            use_cross_timestep=True,
            return_dict=False,
            **conditioning.tensors,
        )
        return rearrange(torch.cat([video, audio], dim=1).float(), "b s c -> b c s 1 1")

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the pipeline's own, whose shift depends on the video's tokens."""
        if shift is not None:
            return Schedule.shifted(num_steps, shift)
        _, frames, height, width = self.video_shape
        scheduler = self.pipeline.scheduler
        mu = shift_by_tokens(
            scheduler,
            frames * height * width,
            base_tokens=1024,
            base_shift=0.95,
            max_shift=2.05,
        )
        return own_schedule(scheduler, num_steps, levels=linear_levels(num_steps), mu=mu)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] of the video tokens by the pipeline's own rule; the sound is left out."""
        vae, (_, frames, height, width) = self.pipeline.vae, self.video_shape
        shown = latents[:, :, : frames * height * width].to(vae.device)
        codes = self.pipeline._denormalize_latents(
            rearrange(shown, "b c (f h w) 1 1 -> b c f h w", h=height, w=width),
            vae.latents_mean,
            vae.latents_std,
            vae.config.scaling_factor,
        ).to(vae.dtype)
        timestep = codes.new_zeros(len(codes)) if vae.config.timestep_conditioning else None
        return decode_video(self.pipeline, codes, timestep)

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapter that `load_lora_weights` reads."""
        save_pipeline(self.pipeline, folder)
