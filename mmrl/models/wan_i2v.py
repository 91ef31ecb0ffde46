"""Wan image-to-video (2.1, 2.2 A14B, 2.2 5B): the first frame comes from the prompt's image."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOperatorIssue=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import WanImageToVideoPipeline
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.data.images import load_image
from mmrl.diffusion.sampler import NetworkOutput, Schedule
from mmrl.models.wan import WanModel, velocity
from mmrl.policies.video_model import IN_MEMORY, Conditioning, Latents, TextOptions, VideoSize

GRAY = 0.5
"""Of frames that are not given, in [0, 1]: 0 for the VAE."""
CLIP_TEXT_TOKENS = 512
"""Where 2.1's attention parts text from CLIP's image tokens, fixed in the network."""


@dataclass
class WanImageToVideoModel:
    """The parts of a WanImageToVideoPipeline that sampling and replay call."""

    pipeline: WanImageToVideoPipeline
    size: VideoSize
    texts: TextOptions = IN_MEMORY
    output: NetworkOutput = "velocity"
    wan: WanModel = field(init=False, repr=False)
    """What text-to-video shares: text, latents, decoder."""
    module: nn.Module = field(init=False, repr=False)
    """What is trained: the transformer, or both experts."""

    def __post_init__(self) -> None:
        self.wan = WanModel(self.pipeline, self.size, self.texts)
        self.module = self.wan.module
        length = self.size.max_sequence_length
        if self._reads_clip and length != CLIP_TEXT_TOKENS:
            raise ConfigError(
                f"Wan 2.1 image-to-video reads {CLIP_TEXT_TOKENS} text tokens, got {length}",
                key="video.max_sequence_length",
            )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents, the given frame included."""
        return self.wan.latent_shape

    @property
    def _reads_clip(self) -> bool:
        return self.pipeline.transformer.config.image_dim is not None

    def to(self, device: torch.device) -> None:
        """Move every part."""
        self.wan.to(device)

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """UMT5's embeddings."""
        return self.wan.encode(texts)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Path]) -> Conditioning:
        """The first frame's latents in the model's own form, with 2.1 also CLIP's view of it.

        The 5B model is given its `first_frame`; the others a mask of it and the latents of a video
        that is gray behind it, as more channels of the state (`condition`).
        """
        pictures = [load_image(image) for image in images]
        size, pipeline = self.size, self.pipeline
        first = pipeline.video_processor.preprocess(pictures, height=size.height, width=size.width)
        first = (first[:, None] + 1) / 2
        if pipeline.config.expand_timesteps:
            return Conditioning({"first_frame": self.wan.encode_video(first)})
        given = torch.full((len(images), size.num_frames, *first.shape[2:]), GRAY)
        given[:, :1] = first
        latents = self.wan.encode_video(given)
        mask = torch.zeros_like(latents[:, :1]).repeat(
            1, pipeline.vae_scale_factor_temporal, 1, 1, 1
        )
        mask[:, :, 0] = 1
        told = {"condition": torch.cat([mask, latents], dim=1)}
        if self._reads_clip:
            told["encoder_hidden_states_image"] = pipeline.encode_image(pictures, latents.device)
        return Conditioning(told)

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """v = noise - data, in float32."""
        told = dict(conditioning.tensors)
        if "first_frame" in told:
            return self._behind(told.pop("first_frame"), x, timestep, told)
        fed = torch.full((len(x),), timestep, device=x.device)
        state = torch.cat([x, told.pop("condition").to(x)], dim=1)
        return velocity(self.wan.expert(timestep), state, fed, told)

    def _behind(
        self,
        first_frame: Float[Tensor, "B C 1 h w"],
        x: Latents,
        timestep: float,
        told: dict[str, Float[Tensor, "B ..."]],
    ) -> Latents:
        """v of the 5B model: the network sees the given frame, and its tokens at timestep 0.

        The given frame's own v leads straight to it, (x - data) / sigma, so that the last state
        holds it, as the pipeline puts it there in the end.
        """
        network = self.wan.expert(timestep)
        patch_t, patch_h, patch_w = network.config.patch_size
        fed = torch.full_like(x[:, 0, ::patch_t, ::patch_h, ::patch_w], timestep)
        fed[:, 0] = 0
        given = first_frame.to(x)
        seen = torch.cat([given, x[:, :, 1:]], dim=2)
        behind = velocity(network, seen, fed.flatten(1), told)[:, :, 1:]
        return torch.cat([(x[:, :, :1] - given) * (1000 / timestep), behind], dim=2)

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The shifted grid, or the noise levels that the pipeline's own scheduler would visit."""
        return self.wan.schedule(num_steps, shift)

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule."""
        return self.wan.decode(latents)

    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """Normalised latents of RGB in [0, 1]."""
        return self.wan.encode_video(videos)

    def save_pretrained(self, folder: Path) -> None:
        """The whole pipeline, or with LoRA only the adapters that `load_lora_weights` reads."""
        self.wan.save_pretrained(folder)
