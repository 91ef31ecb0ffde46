"""LAION's aesthetic heads: linear maps on unit CLIP embeddings, folded into one vector."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.config import ConfigError
from mmrl.models.weights import WeightsUnavailable

LAYER = re.compile(r"(?:.*?(\d+)\.)?(weight|bias)$")


@dataclass(frozen=True)
class AestheticHead:
    """score(v) = weight . v / |v| + bias, about 1 to 10."""

    weight: Float[Tensor, " D"]
    bias: float

    def __call__(self, embeddings: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """One score an embedding; NaN for an embedding that is zero."""
        scores = normalize(embeddings, dim=-1) @ self.weight.to(embeddings) + self.bias
        return torch.where(embeddings.norm(dim=-1) > 0, scores, torch.nan)


def fold(layers: dict[str, Tensor]) -> AestheticHead:
    """A chain of linear layers without activations as the one affine map it is, in float64.

    Layers are taken by the number in their name: `layers.0.weight`, or a bare `weight`.
    """
    chain: dict[int, dict[str, Tensor]] = {}
    for name, value in layers.items():
        found = LAYER.match(name)
        if found is None:
            raise ConfigError(f"a linear layer has weight and bias, not '{name}'", key="head")
        chain.setdefault(int(found[1] or 0), {})[found[2]] = value.double()
    if not chain:
        raise ConfigError("it holds no layer", key="head")
    size = chain[min(chain)]["weight"].shape[1]
    weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for number in sorted(chain):
        layer = chain[number]
        weight, bias = layer["weight"] @ weight, layer["weight"] @ bias + layer["bias"]
    if weight.shape[0] != 1:
        raise ConfigError(f"a head gives one number, this one {weight.shape[0]}", key="head")
    return AestheticHead(weight[0], bias.item())


@cache
def load_head(file: Path) -> AestheticHead:
    """The head in a .pth (read without pickled code) or .safetensors file."""
    if not file.is_file():
        raise WeightsUnavailable(
            f"no file {file}; take sa_0_4_vit_b_16_linear.pth (MIT) from the git repository "
            "LAION-AI/aesthetic-predictor, or the .pth of improved-aesthetic-predictor",
            key="head",
        )
    try:
        if file.suffix == ".safetensors":
            return fold(load_file(file))
        return fold(torch.load(file, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{file} is no chain of linear layers: {error}", key="head") from error
