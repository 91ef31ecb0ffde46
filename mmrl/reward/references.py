"""Are the prompts' references of use to the rewards that read them? Asked before a run begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mmrl.config import ConfigError
from mmrl.reward.base import Reward, RewardConfig
from mmrl.types import Prompt, TextSample

SHOWN = 60
"""Characters of a prompt in a message."""
PROBE = "<think>-</think><answer>-</answer>"
"""A well-formed answer that is hardly right."""


def check_references(trained: Iterable[tuple[str, Reward]], prompts: Sequence[Prompt]) -> None:
    """ConfigError names the first prompt whose samples a trained reward could never score.

    Each reward that reads references judges one made-up answer to every prompt: a number says that
    the reference is one, whatever the number.
    """
    for name, reward in trained:
        if not (isinstance(reward, RewardConfig) and reward.reads_reference):
            continue
        unfit = {i: why for i, p in enumerate(prompts) if (why := _unfit(reward, p)) is not None}
        if unfit:
            first, why = next(iter(unfit.items()))
            raise ConfigError(
                f"{len(unfit)} of {len(prompts)} prompts carry no reference it can read; the "
                f"first is number {first + 1}, {prompts[first].text[:SHOWN]!r}: {why}",
                key=f"rewards.{name}",
            )


def _unfit(reward: RewardConfig, prompt: Prompt) -> str | None:
    try:
        [score] = reward([TextSample(prompt, PROBE)])
    except ConfigError:
        raise
    except Exception as error:
        return str(error) or type(error).__name__
    return f"answer {prompt.answer!r}" if math.isnan(float(score)) else None
