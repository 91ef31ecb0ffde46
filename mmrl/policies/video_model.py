"""What a video (or image) model family offers to the policies, and what its network is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from einops import repeat
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mmrl.diffusion.sampler import NetworkOutput, Schedule

Latents = Float[Tensor, "B C f h w"]


@dataclass(frozen=True)
class VideoSize:
    """What a model is asked to make."""

    num_frames: int
    height: int
    width: int
    max_sequence_length: int
    """Text tokens, padded."""


TextCacheKind = Literal["memory", "disk"]


@dataclass(frozen=True)
class TextOptions:
    """Where text embeddings are kept, and where the text encoders wait."""

    cache: TextCacheKind | None = "memory"
    """`disk`: below the cache folder, for every later run of the same encoders; None: nowhere."""
    offload: bool = False
    """Text encoders wait in host memory, and visit the device for texts that are not cached."""


IN_MEMORY = TextOptions()


@dataclass(frozen=True)
class Conditioning:
    """What a denoiser is told besides state and time: tensors by the network's own names."""

    tensors: Mapping[str, Shaped[Tensor, "B ..."]]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return next(iter(self.tensors.values())).device

    def rows(self, part: slice) -> Conditioning:
        """The same tensors for some rows."""
        return Conditioning({name: value[part] for name, value in self.tensors.items()})

    def repeat(self, times: int) -> Conditioning:
        """Every row `times` times, group-major."""
        return Conditioning(
            {n: repeat(v, "p ... -> (p g) ...", g=times) for n, v in self.tensors.items()}
        )

    def joined(self, more: Conditioning) -> Conditioning:
        """Both's tensors; those of `more` where both have a name."""
        return Conditioning({**self.tensors, **more.tensors})

    @classmethod
    def concat(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Rows of several, one after the other."""
        names = parts[0].tensors
        return cls({name: torch.cat([part.tensors[name] for part in parts]) for name in names})


@runtime_checkable
class VideoEncoder(Protocol):
    """An adapter that can also read recorded videos."""

    def encode_video(self, videos: Float[Tensor, "B F 3 H W"]) -> Latents:
        """Normalised latents of RGB in [0, 1]: the mode of the VAE's posterior."""
        ...


@runtime_checkable
class ImageReader(Protocol):
    """An adapter whose videos start from an image."""

    def encode_images(self, images: Sequence[Path]) -> Conditioning:
        """What the network is told of each image, beside the text."""
        ...


@runtime_checkable
class VideoModel(Protocol):
    """A model family's adapter. Latents are `B C f h w`; an image is a video of one frame."""

    output: NetworkOutput
    """What `predict` returns."""

    @property
    def module(self) -> nn.Module:
        """The denoiser: what is trained."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of one video's latents."""
        ...

    def to(self, device: torch.device) -> None:
        """Move every part."""
        ...

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """One row a text, padded so that rows of different calls can be joined."""
        ...

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """The network's output in float32; timesteps run from 1000 (noise) to 0."""
        ...

    def schedule(self, num_steps: int, shift: float | None) -> Schedule:
        """The grid of a run; `shift` None takes the one of the pipeline's own scheduler."""
        ...

    def decode(self, latents: Latents) -> Float[Tensor, "B F 3 H W"]:
        """RGB in [0, 1] by the pipeline's own rule. Differentiable where gradients are on."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """A folder that the library loads: the whole pipeline, or the LoRA alone."""
        ...


@runtime_checkable
class GuidedModel(Protocol):
    """A family whose guidance is not linear."""

    def guide(self, without: Latents, given: Latents, guidance: float) -> Latents:
        """One output from those without and with the text."""
        ...


def guide(model: VideoModel, without: Latents, given: Latents, guidance: float) -> Latents:
    """without + guidance (given - without) (arXiv:2207.12598), or by the family's own rule."""
    if isinstance(model, GuidedModel):
        return model.guide(without, given, guidance)
    return without + guidance * (given - without)
