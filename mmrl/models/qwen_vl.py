"""Qwen2-VL and Qwen2.5-VL: prompts to inputs, a prefix run once, answers run off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, DynamicCache

from mmrl.config import ConfigError
from mmrl.data.images import load_image
from mmrl.models.folder import check_model_folder
from mmrl.types import Prompt

FAMILIES = ("qwen2_vl", "qwen2_5_vl")


@dataclass(frozen=True)
class VlmInputs:
    """One prompt as the network reads it."""

    ids: Int[Tensor, " L"]
    types: Int[Tensor, " L"]
    """0 text, 1 image."""
    pixels: Float[Tensor, "N K"] | None
    """Flattened patches of all its images."""
    grid: Int[Tensor, "I 3"] | None
    """Patches of each image in time, height and width."""


@dataclass(frozen=True)
class Batch:
    """Several prompts side by side, padded on the left."""

    ids: Int[Tensor, "B L"]
    types: Int[Tensor, "B L"]
    mask: Int[Tensor, "B L"]
    """0 on padding."""
    pixels: Float[Tensor, "N K"] | None
    grid: Int[Tensor, "I 3"] | None


@dataclass
class Prefix:
    """Keys and values of a batch of prompts, and where their answers go on."""

    cache: DynamicCache
    last_hidden: Float[Tensor, "B H"]
    mask: Int[Tensor, "B L"]
    next_position: Int[Tensor, " B"]

    def repeat(self, group_size: int) -> Prefix:
        """Each prompt `group_size` times over, group-major; the cache is changed in place."""
        self.cache.batch_repeat_interleave(group_size)
        return Prefix(
            self.cache,
            self.last_hidden.repeat_interleave(group_size, dim=0),
            self.mask.repeat_interleave(group_size, dim=0),
            self.next_position.repeat_interleave(group_size, dim=0),
        )


@dataclass
class QwenVlModel:
    """The transformers model and its processor."""

    module: nn.Module
    processor: object

    @classmethod
    def from_pretrained(cls, path: str, *, dtype: torch.dtype = torch.float32) -> QwenVlModel:
        """Load a folder (or hub id); ConfigError for another family and a missing processor."""
        check_model_folder(path, "config.json")
        family = AutoConfig.from_pretrained(path).model_type
        if family not in FAMILIES:
            raise ConfigError(
                f"{path} holds a '{family}' model; this adapter reads {' and '.join(FAMILIES)}",
                key="model",
            )
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype)
        try:
            processor = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} has no processor that loads: {error}", key="model"
            ) from error
        return cls(model.eval(), processor)

    @property
    def tokenizer(self):
        """The processor's tokenizer."""
        return self.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @property
    def head(self) -> Float[Tensor, "V H"]:
        """Weights of the output layer."""
        return self.module.lm_head.weight  # pyright: ignore

    def inputs(self, prompts: Sequence[Prompt], template: str) -> list[VlmInputs]:
        """Chat-formatted ids and patches; `{question}` in the template is the prompt's text."""
        return [self._inputs_of_one(prompt, template) for prompt in prompts]

    def prefix(self, inputs: Sequence[VlmInputs]) -> Prefix:
        """Run vision tower and prompts once; prompts of other lengths are padded on the left."""
        batch = self._collate(inputs)
        positions, _ = self.module.model.get_rope_index(  # pyright: ignore
            batch.ids,
            mm_token_type_ids=batch.types,
            image_grid_thw=batch.grid,
            attention_mask=batch.mask,
        )
        cache = DynamicCache(config=self.module.config)  # pyright: ignore
        out = self.module.model(  # pyright: ignore
            input_ids=batch.ids,
            attention_mask=_mask_or_none(batch.mask),
            position_ids=positions,
            pixel_values=batch.pixels,
            image_grid_thw=batch.grid,
            past_key_values=cache,
            use_cache=True,
        )
        after = positions.amax((0, 2)) + 1
        return Prefix(cache, out.last_hidden_state[:, -1], batch.mask, after)

    def advance(self, prefix: Prefix, ids: Int[Tensor, "B T"], done: int) -> Float[Tensor, "B T H"]:
        """Hidden states of T more answer tokens after `done` earlier ones; the cache grows by T."""
        rows, length = ids.shape
        ones = torch.ones((rows, done + length), dtype=prefix.mask.dtype, device=ids.device)
        offset = torch.arange(done, done + length, device=ids.device)
        positions = repeat(prefix.next_position[:, None] + offset, "b t -> three b t", three=3)
        embedded = self.module.get_input_embeddings()(ids)  # pyright: ignore
        out = self.module.model.language_model(  # pyright: ignore
            inputs_embeds=embedded,
            attention_mask=_mask_or_none(torch.cat([prefix.mask, ones], dim=1)),
            position_ids=positions,
            past_key_values=prefix.cache,
            use_cache=True,
        )
        return out.last_hidden_state

    def save_pretrained(self, folder: Path) -> None:
        """Model (with LoRA only the adapter) and processor, as transformers and PEFT read them."""
        self.module.save_pretrained(folder)  # pyright: ignore
        self.processor.save_pretrained(folder)  # pyright: ignore

    def _inputs_of_one(self, prompt: Prompt, template: str) -> VlmInputs:
        content: list[dict] = [{"type": "image"} for _ in prompt.images]
        content.append({"type": "text", "text": template.replace("{question}", prompt.text)})
        text = self.processor.apply_chat_template(  # pyright: ignore
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        images = [load_image(path) for path in prompt.images] or None
        found = self.processor(text=[text], images=images, return_tensors="pt")  # pyright: ignore
        ids, types = found["input_ids"][0], found["mm_token_type_ids"][0]
        grid = found.get("image_grid_thw")
        self._check_image_tokens(ids, grid, prompt)
        return VlmInputs(ids, types, found.get("pixel_values"), grid)

    def _check_image_tokens(self, ids: Tensor, grid: Tensor | None, prompt: Prompt) -> None:
        config = self.module.config
        merge = config.vision_config.spatial_merge_size**2  # pyright: ignore
        features = 0 if grid is None else int(grid.prod(-1).sum()) // merge
        tokens = int((ids == config.image_token_id).sum())  # pyright: ignore
        if tokens != features:
            raise ConfigError(
                f"the prompt {prompt.text[:60]!r} has {tokens} image tokens for {features} image "
                "features; the chat template and the image processor do not belong together",
                key="model",
            )

    def _collate(self, inputs: Sequence[VlmInputs]) -> Batch:
        length = max(len(one.ids) for one in inputs)
        pad = self.tokenizer.pad_token_id
        ids = torch.stack([_left_pad(one.ids, length, pad) for one in inputs])
        types = torch.stack([_left_pad(one.types, length, 0) for one in inputs])
        live = [_left_pad(torch.ones_like(one.ids), length, 0) for one in inputs]
        pixels = [one.pixels for one in inputs if one.pixels is not None]
        grids = [one.grid for one in inputs if one.grid is not None]
        device = self.device
        return Batch(
            ids=ids.to(device),
            types=types.to(device),
            mask=torch.stack(live).to(device),
            pixels=torch.cat(pixels).to(device) if pixels else None,
            grid=torch.cat(grids).to(device) if grids else None,
        )


def _left_pad(values: Tensor, length: int, pad: int) -> Tensor:
    return torch.nn.functional.pad(values, (length - len(values), 0), value=pad)


def _mask_or_none(mask: Tensor) -> Tensor | None:
    """No mask where nothing is padded: the attention kernel is then told so, and is faster."""
    return None if bool(mask.all()) else mask
