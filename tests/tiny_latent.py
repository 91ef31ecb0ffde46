"""A real Qwen2.5-VL of tiny size with random weights that thinks in latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmrl.models.latent_tokens import add_span_tokens
from mmrl.models.vlm import VlmModel
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.types import Prompt
from tests.tiny_vlm import noise_prompts, random_model

LOGITS = {"start": 4.5, "latent": 0.0, "end": 4.5}
"""What the span tokens' logits are near on every state, so that answers open and end spans."""


def latent_policy(
    folder: Path, dtype: torch.dtype = torch.float32, **changes: Any
) -> tuple[LatentVlmPolicy, list[Prompt]]:
    """Ten positions an answer, spans of up to three latents, two groups of three a pass."""
    prompts = noise_prompts(folder)
    model = random_model("qwen2_5_vl")
    tokens = add_span_tokens(model)
    states = written_states(model, prompts)
    with torch.no_grad():
        weight = model.module.get_input_embeddings().weight
        for name, logit in LOGITS.items():
            target = torch.full((len(states),), logit)
            weight[getattr(tokens, name)] = fit(states, target)
    model.module.to(dtype)
    fields = {"max_new_tokens": 10, "rows": 6, "kappa": 200.0, "max_latents": 3, "temperature": 0.7}
    return LatentVlmPolicy(model, **{**fields, **changes}), prompts


def fit(states: Tensor, target: Tensor, ridge: float = 5.0) -> Tensor:
    """The row whose product with every state is near the target."""
    gram = states.T @ states + ridge * torch.eye(states.shape[1])
    return torch.linalg.solve(gram, states.T @ target)


@torch.no_grad()
def written_states(model: VlmModel, prompts: list[Prompt]) -> Tensor:
    """States of random answers, half of them fed back as latents are."""
    generator = torch.Generator().manual_seed(0)
    prefix = model.prefix(model.inputs(prompts, "{question}")).repeat(8)
    hidden, found = prefix.last_hidden, []
    for step in range(10):
        found.append(hidden)
        ids = torch.randint(300, (len(hidden), 1), generator=generator)
        text = torch.rand(len(hidden), generator=generator) < 0.5
        read = torch.where(text[:, None], model.embed(ids)[:, 0], hidden)
        hidden = model.advance_embedded(prefix, read[:, None], step)[:, 0]
    return torch.cat(found)
