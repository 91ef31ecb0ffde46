"""Text embeddings: each text is encoded once, and kept in memory, or on disk for every run."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from jaxtyping import Shaped
from torch import Tensor, nn

from mmrl.data.prompts import cache_folder
from mmrl.models.tensor_files import read_tensors, write_tensors
from mmrl.policies.video_model import Conditioning, TextOptions, VideoSize

EncodeText = Callable[[str], Mapping[str, Shaped[Tensor, "1 ..."]]]
"""A text -> tensors by the network's own names."""
Row = dict[str, Tensor]
PARTS = ("text_encoder", "tokenizer", "connectors")
"""How the names of a pipeline's parts begin that read a text; connectors are those of LTX-2."""
MEMORY_BYTES = 256 * 2**20
"""Embeddings that stay on the device, the last used ones: 64 texts of Wan 2.1."""


@dataclass
class TextCache:
    """Text embeddings of one pipeline at one text length, which is all it takes of the size.

    Texts are encoded one by one, so that an embedding does not depend on the batch around it.
    """

    encode: EncodeText
    pipeline: DiffusionPipeline
    size: VideoSize
    options: TextOptions
    _rows: OrderedDict[str, Row] = field(default_factory=OrderedDict, repr=False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Conditioning:
        """One row a text, where the denoiser is."""
        found = {text: self._known(text) for text in texts}
        new = [text for text, row in found.items() if row is None]
        if new:
            with text_parts_visit(self.pipeline, self.options, self._device):
                found |= {text: self._encoded(text) for text in new}
        rows = [self._keep(text, row) for text, row in found.items() if row is not None]
        places = {text: place for place, text in enumerate(found)}
        chosen = [rows[places[text]] for text in texts]
        return Conditioning({n: torch.stack([row[n] for row in chosen]) for n in chosen[0]})

    @property
    def _device(self) -> torch.device:
        return self.pipeline.transformer.device

    @cached_property
    def _identity(self) -> str:
        return identity(self.pipeline, self.size.max_sequence_length)

    def _known(self, text: str) -> Row | None:
        if text in self._rows or self.options.cache != "disk":
            return self._rows.get(text)
        return read_tensors(file_of(self._identity, text))

    def _encoded(self, text: str) -> Row:
        row = {name: value[0] for name, value in self.encode(text).items()}
        if self.options.cache == "disk":
            file = file_of(self._identity, text)
            write_tensors(file, row, what="text embeddings", cure="text_cache: memory")
        return row

    def _keep(self, text: str, row: Row) -> Row:
        row = {name: value.to(self._device) for name, value in row.items()}
        if self.options.cache is None:
            return row
        self._rows[text] = row
        self._rows.move_to_end(text)
        while len(self._rows) > 1 and sum(map(_bytes, self._rows.values())) > MEMORY_BYTES:
            self._rows.popitem(last=False)
        return row


def is_text_part(name: str) -> bool:
    """Whether a part of a pipeline reads texts, by its name."""
    return name.startswith(PARTS)


def move_pipeline(pipeline: DiffusionPipeline, options: TextOptions, device: torch.device) -> None:
    """Every network to the device; those that read texts stay in host memory if offloaded."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            stays = options.offload and is_text_part(name)
            part.to("cpu" if stays else device)


@contextmanager
def text_parts_visit(
    pipeline: DiffusionPipeline, options: TextOptions, device: torch.device
) -> Iterator[None]:
    """Offloaded text encoders on the device, and back in host memory at the end."""
    visitors = [
        part
        for name, part in pipeline.components.items()
        if options.offload and is_text_part(name) and isinstance(part, nn.Module)
    ]
    for part in visitors:
        part.to(device)
    try:
        yield
    finally:
        for part in visitors:
            part.to("cpu")


def identity(pipeline: DiffusionPipeline, length: int) -> str:
    """Hash of all that an embedding depends on beside its text.

    Text encoders with their weights, tokenizers, text length, precision, and the libraries, which
    hold the templates around a prompt. About a second a gigabyte.
    """
    digest = hashlib.sha256()
    told = (
        type(pipeline).__name__,
        f"diffusers {diffusers.__version__} transformers {transformers.__version__}",
        f"{length} tokens for {pipeline.transformer.dtype}",
    )
    for name, part in sorted(pipeline.components.items()):
        if is_text_part(name) and part is not None:
            told = (*told, name, type(part).__name__)
            _add_part(digest, part)
    digest.update("\n".join(told).encode())
    return digest.hexdigest()


def _add_part(digest: hashlib._Hash, part: object) -> None:
    """A network's config and weights, or a tokenizer's files."""
    if isinstance(part, nn.Module):
        digest.update(json.dumps(_config(part), sort_keys=True, default=str).encode())
        for key, weight in part.state_dict().items():
            digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
            flat = weight.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        return
    with tempfile.TemporaryDirectory() as folder:
        part.save_pretrained(folder)  # pyright: ignore[reportAttributeAccessIssue]
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                digest.update(file.name.encode() + file.read_bytes())


def _config(part: nn.Module) -> dict[str, object]:
    """Without the fields that say where it was loaded from."""
    config = part.config
    transformer = isinstance(config, transformers.PreTrainedConfig)
    found: dict[str, object] = config.to_dict() if transformer else dict(config)  # pyright: ignore
    return {key: value for key, value in found.items() if not key.startswith("_")}


def file_of(identity: str, text: str) -> Path:
    """Where the embedding of a text lies: `text/ab/ab12...safetensors` below the cache folder."""
    key = hashlib.sha256(f"{identity}\n{text}".encode()).hexdigest()
    return cache_folder() / "text" / key[:2] / f"{key}.safetensors"


def _bytes(row: Row) -> int:
    return sum(value.numel() * value.element_size() for value in row.values())
