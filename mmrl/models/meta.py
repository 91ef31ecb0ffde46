"""Models without weights, from their config files, on the meta device; nothing is downloaded."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the libraries behind this module type their own returns loosely)

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmrl.config import ConfigError
from mmrl.models.folder import check_model_folder
from mmrl.models.pipeline import ADAPTERS, freeze_all_but_denoiser, make_adapter
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_loader import adapter_of
from mmrl.policies.video_model import VideoModel, VideoSize


def config_folder(path: str, file: str) -> Path:
    """`path`, or a hub id's folder in the local cache; ConfigError where `file` is in neither."""
    check_model_folder(path, file)
    if Path(path).is_dir():
        return Path(path)
    found = try_to_load_from_cache(path, file)
    if not isinstance(found, str):
        raise ConfigError(
            f"the config files of {path} are not in the local cache; "
            f"fetch them (and no weights) with: hf download {path} --include '*.json'",
            key="model",
        )
    return Path(found).parent


def meta_video_model(
    path: str, size: VideoSize, *, dtype: torch.dtype, told: Mapping[str, float] | None = None
) -> VideoModel:
    """The adapter of a pipeline whose networks have shapes and no numbers; no tokenizers."""
    folder = config_folder(path, "model_index.json")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    name = index["_class_name"]
    if name not in ADAPTERS:
        raise ConfigError(f"{path} is a {name}; no adapter knows it", key="model")
    parts = {}
    for key, value in index.items():
        if isinstance(value, list):
            parts[key] = _part(folder / key, *value, dtype=dtype)
        elif not key.startswith("_"):
            parts[key] = value
    pipeline: DiffusionPipeline = getattr(diffusers, name)(**parts)
    freeze_all_but_denoiser(pipeline)
    return make_adapter(pipeline, size, told=told)


def meta_vlm(path: str, *, dtype: torch.dtype) -> VlmModel:
    """A vision-language model with shapes and no numbers, and without a processor."""
    config = transformers.AutoConfig.from_pretrained(config_folder(path, "config.json"))
    family = adapter_of(config.model_type, path)
    with torch.device("meta"):
        module = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return VlmModel(module, None, family)


def _part(folder: Path, library: str | None, name: str | None, *, dtype: torch.dtype) -> object:
    """A component of a pipeline: a network on meta, a real scheduler, None for all others."""
    if library is None or name is None:
        return None
    if library not in ("diffusers", "transformers"):  # a class that lies beside its pipeline
        library = f"diffusers.pipelines.{library}"
    cls = getattr(import_module(library), name, None)
    if cls is not None and (folder / "scheduler_config.json").is_file():
        return cls.from_pretrained(folder)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        return None
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} holds no config.json", key="model")
    with torch.device("meta"):
        if issubclass(cls, transformers.PreTrainedModel):
            assert cls.config_class is not None
            config = cls.config_class.from_pretrained(folder)
            return cls._from_config(config, dtype=dtype)
        made = cls.from_config(json.loads((folder / "config.json").read_text("utf-8")))
    kept = set(cls._keep_in_fp32_modules or ())
    for key, weight in made.named_parameters():
        if not kept & set(key.split(".")):
            weight.data = weight.data.to(dtype)
    return made


class PeakBytes(TorchDispatchMode):
    """Most bytes that tensors made inside held at one time; on meta they count as real ones do.

    What an operator's kernel needs inside itself is not seen.
    """

    def __init__(self, known: Iterable[Shaped[Tensor, ...]] = ()) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Shaped[Tensor, ...]) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(storage)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size
