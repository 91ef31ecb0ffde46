"""Med-R1 (arXiv:2503.13939): GRPO on medical multiple choice with accuracy and format rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.data.files import CACHE_PREFIX, cache_folder
from mmrl.data.medical import check_medical, without_pictures_of
from mmrl.data.prompts import load_prompts
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.recipe import Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

if TYPE_CHECKING:
    from mmrl.policies.vlm import VlmPolicy

TEMPLATES = {
    "think": (
        "{question}\nReason inside <think> </think> tags first. Then write only the letter of the "
        "one right option inside <answer> </answer> tags."
    ),
    "no_think": "{question}\nWrite only the letter of the right option in <answer> </answer> tags.",
    "think_after": (
        "{question}\nFirst write only the letter of the one right option inside <answer> </answer> "
        "tags. Then explain it inside <think> </think> tags."
    ),
}
SHORTEST = {
    "think": "<think>a</think><answer>A</answer>",
    "no_think": "<answer>A</answer>",
    "think_after": "<answer>A</answer><think>a</think>",
}
"""An answer that says next to nothing: what the token limit must leave room for."""


@pipelines.register("med_r1")
class MedR1(VlmPipelineConfig):
    """Med-R1: train a vision-language model on medical questions with rule-based rewards."""

    pipeline: str = "med_r1"
    group_size: int = 4
    template: Literal["think", "no_think", "think_after"] = "think"
    """Reason first, not at all, or after the answer (Think-After, version 5 of the paper)."""
    split_by_picture: bool = False
    """Leave out training questions whose picture the evaluation shows too."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.04))
    """k3 against the first policy with TRL's weight, as the release has it."""

    def build(self) -> Recipe:
        """The parts of Med-R1; DataError names a prompt that is no medical multiple choice."""
        policy = build_vlm_policy(self, template=TEMPLATES[self.template])
        recipe = vlm_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-4),
            objective=Grpo({"token": Clip(self.clip, self.clip)}),
        )
        check_medical(recipe.prompts)
        self._check_room(policy)
        if not self.split_by_picture or not self.evaluate:
            return recipe
        held_out = load_prompts(self.evaluate.prompts)
        return replace(recipe, prompts=without_pictures_of(recipe.prompts, held_out))

    def _check_room(self, policy: VlmPolicy) -> None:
        shortest = policy.model.tokenizer(SHORTEST[self.template])["input_ids"]
        if self.max_new_tokens <= len(shortest):
            raise ConfigError(
                f"{self.max_new_tokens} tokens do not hold the blocks of '{self.template}', which "
                f"take {len(shortest)} and an end",
                key="max_new_tokens",
            )

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _is_tested_on_other_prompts(self) -> MedR1:
        if not self.evaluate:
            return self
        tested, trained = files_of(self.evaluate.prompts), files_of(self.prompts)
        both = [name for file, name in tested.items() if file in trained]
        if both:
            raise ConfigError(
                f"{both[0]} is also the training side; name the held-out one",
                key="evaluate.prompts",
            )
        return self

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _format_is_that_of_the_template(self) -> MedR1:
        reward = self.rewards.rewards.get("answer_format")
        asked = getattr(reward, "template", self.template)
        if asked != self.template:
            raise ConfigError(
                f"'{asked}' rewards another form than template '{self.template}' asks for",
                key="rewards.answer_format.template",
            )
        return self


def files_of(prompts: str | Sequence[str]) -> dict[Path, str]:
    """The files of a `prompts` key, links followed, and how each is named; they need not exist."""
    names = [n.strip() for n in (prompts.split(",") if isinstance(prompts, str) else prompts)]
    return {_place(name).resolve(): name for name in names}


def _place(name: str) -> Path:
    inside = name.removeprefix(CACHE_PREFIX)
    return Path(name) if inside == name else cache_folder() / inside
