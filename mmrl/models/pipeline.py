"""What every adapter of a diffusers pipeline does alike: load it frozen, shape it, save it."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportIndexIssue=false
# (diffusers types its own returns loosely)

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TypeVar

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.models.folder import check_model_folder
from mmrl.models.hub import local_only, one_line_errors
from mmrl.models.size import patch_of
from mmrl.policies.lora import has_lora
from mmrl.policies.video_model import IN_MEMORY, Latents, TextOptions, VideoModel, VideoSize

P = TypeVar("P", bound=DiffusionPipeline)
ADAPTERS = {
    "CogVideoXPipeline": "mmrl.models.cogvideox:CogVideoXModel",
    "Flux2KleinPipeline": "mmrl.models.flux2:Flux2Model",
    "Flux2Pipeline": "mmrl.models.flux2:Flux2Model",
    "FluxPipeline": "mmrl.models.flux:FluxModel",
    "HunyuanVideo15Pipeline": "mmrl.models.hunyuan_video15:HunyuanVideo15Model",
    "HunyuanVideoPipeline": "mmrl.models.hunyuan_video:HunyuanVideoModel",
    "LTX2Pipeline": "mmrl.models.ltx2:Ltx2Model",
    "LTXPipeline": "mmrl.models.ltx:LtxModel",
    "QwenImagePipeline": "mmrl.models.qwen_image:QwenImageModel",
    "StableDiffusion3Pipeline": "mmrl.models.sd3:Sd3Model",
    "WanImageToVideoPipeline": "mmrl.models.wan_i2v:WanImageToVideoModel",
    "WanPipeline": "mmrl.models.wan:WanModel",
}
"""Adapter of every pipeline class that model_index.json may name."""


def load_video_model(
    path: str,
    size: VideoSize,
    *,
    dtype: torch.dtype,
    tile_vae: bool = False,
    texts: TextOptions = IN_MEMORY,
    told: Mapping[str, float] | None = None,
) -> VideoModel:
    """The adapter that fits the pipeline in `path` (a folder or hub id), its parts loaded.

    `tile_vae` decodes in tiles, one video at a time; `told` are numbers as of `make_adapter`.
    ConfigError where no adapter knows the pipeline's class.
    """
    name = pipeline_class(path)
    if name not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ConfigError(f"{path} is a {name}; adapters exist for {known}", key="model")
    pipeline = load_frozen(getattr(diffusers, name), path, dtype)
    model = make_adapter(pipeline, size, texts, told)
    if tile_vae:
        model.pipeline.vae.enable_tiling()
        model.pipeline.vae.enable_slicing()
    return model


def make_adapter(
    pipeline: DiffusionPipeline,
    size: VideoSize,
    texts: TextOptions = IN_MEMORY,
    told: Mapping[str, float] | None = None,
) -> VideoModel:
    """The adapter of a loaded pipeline.

    `told` are numbers that its network is told beside text and noise level, by their field in the
    adapter: `embedded_guidance`, `frame_rate`. ConfigError for one that it does not read.
    """
    module, _, attribute = ADAPTERS[type(pipeline).__name__].partition(":")
    adapter = getattr(import_module(module), attribute)
    told = told or {}
    for key in told:
        if not any(field.name == key for field in fields(adapter)):
            raise ConfigError(f"{attribute} has no such number; leave it out", key=key)
    if "embedded_guidance" in told and not pipeline.transformer.config.get("guidance_embeds", True):
        raise ConfigError(
            "this network was not distilled to read its guidance; use sampling.guidance",
            key="embedded_guidance",
        )
    return adapter(pipeline, size, texts, **told)


def at_size(model: VideoModel, size: VideoSize) -> VideoModel:
    """The same loaded parts asked for videos of another size."""
    assert is_dataclass(model) and not isinstance(model, type)
    return replace(model, size=size)


def pipeline_class(path: str) -> str:
    """The pipeline class that a folder's, or a hub id's, model_index.json names."""
    check_model_folder(path, "model_index.json")
    if Path(path).is_dir():
        index = json.loads((Path(path) / "model_index.json").read_text("utf-8"))
    else:
        with one_line_errors(path):
            index = DiffusionPipeline.load_config(path, local_files_only=local_only(path))
    return str(index["_class_name"])


def load_frozen(cls: type[P], path: str, dtype: torch.dtype) -> P:
    """The pipeline in eval mode; all but the denoiser frozen."""
    check_model_folder(path, "model_index.json")
    with one_line_errors(path):
        loaded = cls.from_pretrained(path, dtype=dtype, local_files_only=local_only(path))
    return freeze_all_but_denoiser(loaded)


def freeze_all_but_denoiser(pipeline: P) -> P:
    """Only `transformer` (and `transformer_2`) keep gradients; no progress bars."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            part.eval()
            part.requires_grad_(name.startswith("transformer"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latent_grid(
    size: VideoSize, channels: int, *, time: int, space: int
) -> tuple[int, int, int, int]:
    """Channels, frames, height and width of latents: a first frame alone, then `time` to one."""
    frames = (size.num_frames - 1) // time + 1
    return channels, frames, size.height // space, size.width // space


def denoiser_tokens(latent_shape: tuple[int, int, int, int], config: Mapping) -> int:
    """Patches of one sample. A network of four times the latents' channels packs 2 x 2 of them."""
    channels, frames, height, width = latent_shape
    packed = config["in_channels"] == 4 * channels
    patch = (1, 2, 2) if packed else patch_of(config)
    return frames * height * width // prod(patch)


def decode_video(
    pipeline: DiffusionPipeline, codes: Latents, timestep: Float[Tensor, " B"] | None = None
) -> Float[Tensor, "B F 3 H W"]:
    """RGB in [0, 1] of the VAE's own codes, in float32; `timestep` is of a VAE that denoises."""
    told = () if timestep is None else (timestep,)
    video = pipeline.vae.decode(codes, *told, return_dict=False)[0]
    return pipeline.video_processor.postprocess_video(video, output_type="pt").float()


def video_codes(
    pipeline: DiffusionPipeline, videos: Float[Tensor, "B F 3 H W"]
) -> Float[Tensor, "B C f h w"]:
    """The mode of the VAE's posterior of RGB in [0, 1], as the VAE scales it."""
    pixels = rearrange(2 * videos - 1, "b f c h w -> b c f h w")
    return pipeline.vae.encode(
        pixels.to(pipeline.vae.device, pipeline.vae.dtype)
    ).latent_dist.mode()


def wan_moments(vae: nn.Module) -> tuple[Float[Tensor, "1 C 1 1 1"], Float[Tensor, "1 C 1 1 1"]]:
    """Mean and std of a VAE's codes, as Wan's family has them in the config."""
    mean, std = (
        torch.tensor(x, device=vae.device, dtype=vae.dtype).view(1, -1, 1, 1, 1)
        for x in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """The whole pipeline, or with adapters in its denoiser what `load_lora_weights` reads.

    A pipeline without that method reads it with
    `transformer.load_lora_adapter(folder, prefix=None, use_safetensors=True)`. The adapter of a
    second denoiser lies in `transformer_2/`, for `load_into_transformer_2=True`.
    """
    parts = {
        name: part
        for name, part in pipeline.components.items()
        if name.startswith("transformer") and part is not None
    }
    if not any(has_lora(part) for part in parts.values()):
        pipeline.save_pretrained(folder, safe_serialization=True)
        return
    for name, part in parts.items():
        place = folder if name == "transformer" else folder / name
        if isinstance(pipeline, LoraBaseMixin):
            save_lora(pipeline, part, place)
        else:
            part.save_lora_adapter(place)


def save_lora(pipeline: LoraBaseMixin, module: nn.Module, folder: Path) -> None:
    """One denoiser's adapter as `load_lora_weights` reads it."""
    from peft import get_peft_model_state_dict

    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(module),
        transformer_lora_adapter_metadata=module.peft_config["default"].to_dict(),
    )
