"""A vision-language model of transformers: prompts to inputs, a prefix run once, answers off it.

What differs between families is a `VlmFamily`: a few names and functions. The rest is here, once.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# (transformers types its own models loosely)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from mmrl.config import ConfigError
from mmrl.data.images import load_image
from mmrl.models.packed import block_mask, checkpointed, pack
from mmrl.models.vlm_family import Batch, Features, Images, Prefix, Start, VlmFamily, VlmInputs
from mmrl.types import Prompt


@dataclass
class VlmModel:
    """A transformers model, its processor, and what is special about its family."""

    module: PreTrainedModel
    processor: object
    family: VlmFamily

    @property
    def tokenizer(self):
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def network(self) -> nn.Module:
        """The model without its head."""
        return self.module.get_submodule("model")

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @property
    def head(self) -> Float[Tensor, "V H"]:
        """Weights of the output layer; ConfigError where adapters sit on it."""
        head = self.module.lm_head
        if type(head) is not nn.Linear:
            raise ConfigError(
                "log-probs are made from the output layer's own weights, chunk by chunk: "
                "'lm_head' cannot have adapters",
                key="lora.targets",
            )
        assert head.bias is None
        return head.weight

    @property
    def vision(self) -> tuple[str, ...]:
        """Names in the module of the vision tower and its projector."""
        return tuple(f"model.{name}" for name in self.family.vision)

    @property
    def vision_learns(self) -> bool:
        """Whether any weight between pixels and text model is trained."""
        parts = [self.module.get_submodule(name) for name in self.vision]
        return any(weight.requires_grad for part in parts for weight in part.parameters())

    def freeze_vision(self) -> None:
        """Train nothing between pixels and text model."""
        for name in self.vision:
            self.module.get_submodule(name).requires_grad_(False)

    def inputs(self, prompts: Sequence[Prompt], template: str) -> list[VlmInputs]:
        """Chat-formatted ids and images; `{question}` in the template is the prompt's text."""
        return [self._inputs_of_one(prompt, template) for prompt in prompts]

    def chat(self, prompt: Prompt, template: str) -> str:
        """What the model is asked, a single placeholder for each image."""
        content: list[dict] = [{"type": "image"} for _ in prompt.images]
        content.append({"type": "text", "text": template.replace("{question}", prompt.text)})
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    @torch.no_grad()
    def look(self, inputs: Sequence[VlmInputs]) -> list[VlmInputs]:
        """The same prompts with the features of their images, for a vision tower at rest."""
        batch = self._collate(inputs)
        if batch.images is None:
            return list(inputs)
        found = self.family.features(self.network, batch.images)
        counts = [int(one.types.sum()) for one in inputs]
        parts = [x.split(counts) for x in (found.tokens, *found.layers)]
        features = [Features(tokens, tuple(layers)) for tokens, *layers in zip(*parts, strict=True)]
        return [
            one if one.images is None else replace(one, images=_sizes(one.images), features=part)
            for one, part in zip(inputs, features, strict=True)
        ]

    def prefix(self, inputs: Sequence[VlmInputs]) -> Prefix:
        """Run vision tower and prompts once; prompts of other lengths are padded on the left."""
        start = self._start(inputs)
        cache = DynamicCache(config=self.module.config)
        hidden = self._run(
            start.embedded,
            _mask_or_none(start.mask),
            start.positions,
            past_key_values=cache,
            use_cache=True,
            **start.deepstack(),
        )
        return Prefix(cache, hidden[:, -1], start.mask, start.next_position)

    def advance(self, prefix: Prefix, ids: Int[Tensor, "B T"], done: int) -> Float[Tensor, "B T H"]:
        """Hidden states of T more answer tokens after `done` earlier ones; the cache grows by T."""
        return self.advance_embedded(prefix, self.embed(ids), done)

    def advance_embedded(
        self, prefix: Prefix, embedded: Float[Tensor, "B T H"], done: int
    ) -> Float[Tensor, "B T H"]:
        """`advance` for vectors in the place of tokens."""
        rows, length, _ = embedded.shape
        ones = torch.ones((rows, done + length), dtype=prefix.mask.dtype, device=embedded.device)
        offset = torch.arange(done, done + length, device=embedded.device)
        return self._run(
            embedded,
            _mask_or_none(torch.cat([prefix.mask, ones], dim=1)),
            self._on_all_axes(prefix.next_position[:, None] + offset),
            past_key_values=prefix.cache,
            use_cache=True,
        )

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        """Input vectors of tokens."""
        return self.module.get_input_embeddings()(ids)

    def packed(
        self, inputs: Sequence[VlmInputs], ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "K H"]:
        """The hidden states that predict the first `lengths` tokens of every answer, row by row.

        One row a prompt, [prefix | answer 1 | ... | answer G], in which an answer sees the prefix
        and itself and starts at the same position as every other: what `prefix` and `advance` give,
        without a cache, so that layers can be run again in the backward pass in the place of
        keeping what they made.
        """
        with checkpointed(self.module):
            start = self._start(inputs)
            answers = pack(ids, lengths, len(inputs))
            later = answers.ids.shape[1]
            embedded = torch.cat([start.embedded, self.embed(answers.ids)], dim=1)
            after = self._on_all_axes(start.next_position[:, None] + answers.place)
            hidden = self._run(
                embedded,
                block_mask(start.mask, answers.owner),
                torch.cat([start.positions, after], dim=2),
                use_cache=False,
                **start.deepstack(later),
            )
        width = start.mask.shape[1]
        return hidden[answers.source_row, answers.source_column + width - 1]

    def save_pretrained(self, folder: Path) -> None:
        """Model (with LoRA only the adapter) and processor, as transformers and PEFT read them."""
        self.module.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _start(self, inputs: Sequence[VlmInputs]) -> Start:
        batch = self._collate(inputs)
        embedded, seen = self.embed(batch.ids), batch.types == 1
        known = [one.features for one in inputs if one.features is not None]
        features = _join(known) if known else None
        if batch.images is not None and features is None:
            features = self.family.features(self.network, batch.images)
        positions = self.family.positions(self.network, batch)
        if features is None:
            return Start(embedded, positions, batch.mask, seen, ())
        assert len(features.tokens) == int(seen.sum()), "image tokens without a feature each"
        tokens = features.tokens.to(embedded.dtype)
        embedded = embedded.masked_scatter(seen[..., None], tokens)
        return Start(embedded, positions, batch.mask, seen, features.layers)

    def _run(
        self,
        embedded: Float[Tensor, "B L H"],
        mask: Tensor | None,
        positions: Int[Tensor, "axes B L"],
        **more: object,
    ) -> Float[Tensor, "B L H"]:
        text = self.network.get_submodule(self.family.text)
        return text(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=positions if self.family.rotary_axes > 1 else positions[0],
            **more,
        ).last_hidden_state

    def _on_all_axes(self, positions: Int[Tensor, "B T"]) -> Int[Tensor, "axes B T"]:
        return repeat(positions, "b t -> axes b t", axes=self.family.rotary_axes)

    def _inputs_of_one(self, prompt: Prompt, template: str) -> VlmInputs:
        text = self.chat(prompt, template)
        pictures = [load_image(path) for path in prompt.images]
        start = self.tokenizer.bos_token
        found = self.processor(
            text=[text],
            images=[pictures] if pictures else None,
            return_tensors="pt",
            add_special_tokens=not (start and text.startswith(start)),
        )
        ids, images = found["input_ids"][0], self.family.images(found)
        types = (ids == self.module.config.image_token_id).to(ids.dtype)
        self._check_image_tokens(int(types.sum()), images, prompt)
        return VlmInputs(ids, types, images)

    def _check_image_tokens(self, tokens: int, images: Images | None, prompt: Prompt) -> None:
        features = self.family.count(self.module.config, images) if images else 0
        if tokens != features:
            raise ConfigError(
                f"the prompt {prompt.text[:60]!r} has {tokens} image tokens for {features} image "
                "features; the chat template and the image processor do not belong together",
                key="model",
            )

    def _collate(self, inputs: Sequence[VlmInputs]) -> Batch:
        length = max(len(one.ids) for one in inputs)
        pad, device = self.tokenizer.pad_token_id, self.device
        images = [one.images for one in inputs if one.images is not None]
        return Batch(
            ids=torch.stack([_left_pad(one.ids, length, pad) for one in inputs]).to(device),
            types=torch.stack([_left_pad(one.types, length, 0) for one in inputs]).to(device),
            mask=torch.stack([_left_pad(torch.ones_like(one.ids), length, 0) for one in inputs]).to(
                device
            ),
            images={key: torch.cat([one[key] for one in images]).to(device) for key in images[0]}
            if images
            else None,
        )


def _sizes(images: Images) -> Images:
    return {key: values for key, values in images.items() if not key.startswith("pixel_")}


def _join(parts: Sequence[Features]) -> Features:
    layers = zip(*(part.layers for part in parts), strict=True)
    tokens = torch.cat([part.tokens for part in parts])
    return Features(tokens, tuple(torch.cat(layer) for layer in layers))


def _left_pad(values: Tensor, length: int, pad: int) -> Tensor:
    return nn.functional.pad(values, (length - len(values), 0), value=pad)


def _mask_or_none(mask: Tensor) -> Tensor | None:
    """No mask where nothing is padded: the attention kernel is then told so, and is faster."""
    return None if bool(mask.all()) else mask
