"""A linear map from sentence embeddings to CLIP's image space: a stand-in for its text tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.config import ConfigError


@dataclass(frozen=True)
class TextAdapter:
    """score(t, v) = cos((t - text_mean) W, v - image_mean), W fitted by ridge regression."""

    weight: Float[Tensor, "T V"]
    text_mean: Float[Tensor, " T"]
    image_mean: Float[Tensor, " V"]

    def map_texts(self, texts: Float[Tensor, "N T"]) -> Float[Tensor, "N V"]:
        """Texts as directions in the image space."""
        return normalize((texts - self.text_mean) @ self.weight, dim=-1)

    def map_images(self, images: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Images as directions from the mean image."""
        return normalize(images - self.image_mean, dim=-1)


def fit_adapter(
    texts: Float[Tensor, "N T"], images: Float[Tensor, "N V"], ridge: float
) -> TextAdapter:
    """W = (T'T + ridge I)^-1 T'V on centered embeddings, in float64."""
    texts, images = texts.double(), images.double()
    text_mean, image_mean = texts.mean(0), images.mean(0)
    centered = texts - text_mean
    gram = centered.T @ centered + ridge * torch.eye(texts.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, centered.T @ (images - image_mean))
    return TextAdapter(weight.float(), text_mean.float(), image_mean.float())


def save_adapter(file: Path, adapter: TextAdapter, told: dict[str, str]) -> None:
    """float16 tensors and what is told of the fit."""
    tensors = {name: value.half().contiguous() for name, value in vars(adapter).items()}
    save_file(tensors, file, metadata=told)


def load_adapter(file: Path) -> tuple[TextAdapter, dict[str, str]]:
    """The adapter of a file, and what its metadata tells of the fit."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = ("weight", "text_mean", "image_mean")
            found = {name: opened.get_tensor(name).float() for name in names}
            return TextAdapter(**found), opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} is no adapter file: {error}", key="adapter") from error
