"""A judge in this process: any vision-language model that the policies can run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from pydantic import Field

from mmrl.config import Config
from mmrl.judge.base import TOP_TOKENS, Question, Reply
from mmrl.models.folder import check_model_folder
from mmrl.models.place import Device, Precision, pick_device
from mmrl.reward.base import Unit
from mmrl.types import Prompt

if TYPE_CHECKING:
    from mmrl.policies.vlm import VlmPolicy


class LocalJudge(Config):
    """A judge that is loaded on the first question and answers greedily."""

    kind: Literal["local"] = "local"
    model: str
    """A transformers folder, such as `thinking_reward_model` writes, or a hub id."""
    max_new_tokens: int = Field(default=256, ge=1)
    rows: int = Field(default=16, ge=1)
    """Questions of one forward pass."""
    device: Device = None
    precision: Precision = "float32"

    def check(self) -> None:
        """ConfigError unless `model` is a model's folder or has the form of a hub id."""
        check_model_folder(self.model, "config.json")

    @property
    def unit(self) -> Unit:
        """A whole batch is asked at once."""
        return "batch"

    @property
    def usual_faults(self) -> dict[str, Any]:
        """No limits but the general ones."""
        return {}

    @cached_property
    def policy(self) -> VlmPolicy:
        """The model, loaded on first use."""
        from mmrl.models.vlm_loader import load_vlm
        from mmrl.policies.vlm import VlmPolicy

        model = load_vlm(self.model, dtype=getattr(torch, self.precision))
        policy = VlmPolicy(model, max_new_tokens=self.max_new_tokens, rows=self.rows)
        policy.to(pick_device(self.device))
        return policy

    async def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply a question, `rows` at a time."""
        replies = []
        for start in range(0, len(questions), self.rows):
            part = questions[start : start + self.rows]
            with tempfile.TemporaryDirectory() as folder:
                prompts = [prompt_of(q, Path(folder) / str(n)) for n, q in enumerate(part)]
                replies += self._reply(prompts, any(q.first_token for q in part))
        return replies

    @torch.no_grad()
    def _reply(self, prompts: Sequence[Prompt], first_token: bool) -> list[Reply]:
        samples = self.policy.sample(prompts, [0] * len(prompts))
        tops = self._first_tokens(prompts) if first_token else [{}] * len(prompts)
        return [Reply(sample.text, top) for sample, top in zip(samples, tops, strict=True)]

    def _first_tokens(self, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        model = self.policy.model
        prefix = model.prefix(model.inputs(prompts, self.policy.prompt_template))
        likeliest = (prefix.last_hidden @ model.head.T).float().log_softmax(-1).topk(TOP_TOKENS)
        rows = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        return [
            {model.tokenizer.decode([i]): v for i, v in zip(ids, values, strict=True)}
            for ids, values in rows
        ]


def prompt_of(question: Question, stem: Path) -> Prompt:
    """The question as models read it: pictures in memory become files."""
    paths = []
    for number, image in enumerate(question.images):
        path = image if isinstance(image, Path) else Path(f"{stem}-{number}.png")
        if isinstance(image, Image.Image):
            image.save(path)
        paths.append(path)
    return Prompt(question.text, tuple(paths))
