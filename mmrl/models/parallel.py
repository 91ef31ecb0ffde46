"""The tokens of one sample spread over several processes, by diffusers' context parallelism.

Ulysses attention (arXiv:2309.14509): every process holds a part of the tokens, and for attention a
part of the heads instead. Outputs are gathered, so that all see the whole velocity; each has the
gradient of its own tokens, and their sum is that of one process alone.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# (diffusers types its own returns loosely)

from __future__ import annotations

import torch
from diffusers import (
    ContextParallelConfig,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    ModelMixin,
    QwenImageTransformer2DModel,
    WanTransformer3DModel,
)
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from mmrl.config import ConfigError
from mmrl.models.pipeline import denoiser_tokens
from mmrl.policies.video_model import VideoModel

SPLITTABLE = (
    WanTransformer3DModel,
    FluxTransformer2DModel,
    Flux2Transformer2DModel,
    QwenImageTransformer2DModel,
)
"""Networks whose split output and gradient equal the whole one's.

Of the others diffusers 0.42 has no plan, or (LTX) a text mask that does not fit split heads.
"""
KEY = "context_parallel.ulysses_degree"


def split_tokens(model: VideoModel, degree: int) -> None:
    """Let each `degree` neighbouring processes work on one sample; ConfigError where they cannot.

    All of them must call the network with the same inputs.
    """
    check_split(model, degree)
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if world % degree:
        raise ConfigError(
            f"{degree} processes a sample do not spread over {world}: start with `accelerate "
            f"launch --num_processes {degree}` or a multiple, or set context_parallel=null",
            key=KEY,
        )
    if torch.accelerator.device_count() == 0:
        raise ConfigError(
            "diffusers splits tokens over accelerators, and there is none; "
            "set context_parallel=null",
            key=KEY,
        )
    accelerator = torch.accelerator.current_accelerator()
    mesh = init_device_mesh(
        accelerator.type if accelerator else "cpu",
        (world // degree, 1, degree),
        mesh_dim_names=("data", "ring", "ulysses"),
    )["ring", "ulysses"]
    for network in _networks(model):
        network.enable_parallelism(config=ContextParallelConfig(ulysses_degree=degree, mesh=mesh))


def check_split(model: VideoModel, degree: int) -> None:
    """ConfigError unless network, heads, tokens and text of the model can be cut evenly."""
    network = _networks(model)[0]
    name = type(network).__name__
    if not isinstance(network, SPLITTABLE):
        known = ", ".join(cls.__name__ for cls in SPLITTABLE)
        raise ConfigError(
            f"diffusers cannot split the tokens of {name}; set context_parallel=null "
            f"(networks that can: {known})",
            key=KEY,
        )
    counts = {
        "attention heads": network.config.num_attention_heads,
        "tokens of a sample": denoiser_tokens(model.latent_shape, network.config),
    }
    if not isinstance(network, WanTransformer3DModel):  # whose text every process reads whole
        counts["text tokens"] = model.size.max_sequence_length
    for what, count in counts.items():
        if count % degree:
            raise ConfigError(
                f"{count} {what} do not spread evenly over {degree} processes; choose another "
                "degree, size or video.max_sequence_length",
                key=KEY,
            )


def _networks(model: VideoModel) -> list[ModelMixin]:
    """The denoiser, or both experts."""
    parts = model.pipeline.components
    found = (parts.get(name) for name in ("transformer", "transformer_2"))
    return [network for network in found if network is not None]
