"""What a reward is, and the names of rewards: a class, or a function that becomes one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

from jaxtyping import Float
from pydantic import create_model
from torch import Tensor

from mmrl.config import Config, UserError, parse
from mmrl.registry import Registry, load_file
from mmrl.types import TextSample, VideoSample

Unit = Literal["sample", "batch", "group"]
"""What one call gets: one sample, all samples, or the samples of one prompt."""
UNIT_OF_PARAMETER: dict[str, Unit] = {"sample": "sample", "samples": "batch", "group": "group"}

SAMPLE_NAMES = re.compile(r"\b\w*Sample\b")


@runtime_checkable
class Reward(Protocol):
    """One number per sample; NaN where the sample could not be scored."""

    def __call__(self, samples: Sequence[Any]) -> Float[Tensor, " B"]: ...


class RewardConfig(Config):
    """Base of a reward: its fields are its config. Heavy models load on the first call.

    `__call__` may be `async`. A class variable `unit` ("sample", "batch" or "group") says what one
    call gets; without it a call gets the whole batch.
    """

    differentiable: ClassVar[bool] = False
    """Whether gradients flow from the score to the pixels."""
    reads_reference: ClassVar[bool] = False
    """Whether it judges a written answer by the prompt's reference, so that a prompt without a
    proper one can be refused before training."""
    reads_prompt: ClassVar[bool] = True
    """Whether the prompt counts at all; where no reward reads it, files are scored without one."""
    reads_spread_frames: ClassVar[bool] = False
    """Whether `num_frames` frames, the centres of equal segments, are all it reads of a video:
    then no others are decoded when files are scored."""

    def check(self) -> None:
        """ConfigError, its key a field, for what shows cheaply before the first rollout.

        A folder without a model, a missing variable, a service that is not there; nothing is
        loaded. It is called once by a training or an evaluation that is about to begin.
        """

    def __call__(self, samples: Sequence[Any]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not score")


rewards: Registry[Any] = Registry("mmrl.rewards", "reward")
"""Classes of RewardConfig, and functions that `reward_class` turns into one."""


class RewardError(UserError):
    """A reward that failed on more samples than its budget allows."""


class RewardFailure(RuntimeError):
    """What a reward raises to say in its own words why samples have no score."""


class RewardUnavailable(RuntimeError):
    """What a reward raises where waiting may help: its service is away, or asks for patience."""


def reward_class(name: str, path: str | None = None) -> type[RewardConfig]:
    """The class behind a name, or behind `file.py:name`."""
    if path is None:
        return as_reward_class(rewards.get(name))
    file, _, attribute = path.partition(":")
    found = getattr(load_file(Path(file)), attribute, None)
    if found is None:
        raise ValueError(
            f"{path}: no such name; expected file.py:name of a RewardConfig class or a function"
        )
    return as_reward_class(found)


def as_reward_class(found: Any) -> type[RewardConfig]:
    """A RewardConfig class as it is; a function as a class whose fields are its further parameters.

    The first parameter's name says what one call gets: `sample`, `samples` or `group`.
    """
    if isinstance(found, type) and issubclass(found, RewardConfig):
        return found
    if not inspect.isfunction(found):
        raise ValueError(f"{found!r}: expected a RewardConfig class or a function")
    first, *others = inspect.signature(found).parameters.values()
    unit = UNIT_OF_PARAMETER.get(first.name)
    if unit is None:
        raise ValueError(
            f"{found.__name__}({first.name}): name the first parameter `sample`, `samples` or "
            "`group`: one sample, all of them, or those of one prompt"
        )
    fields: dict[str, Any] = {
        one.name: (
            Any if one.annotation is one.empty else one.annotation,
            ... if one.default is one.empty else one.default,
        )
        for one in others
    }
    made = create_model(
        found.__name__, __base__=RewardConfig, __module__=found.__module__, **fields
    )
    made.__doc__ = found.__doc__
    made.unit = unit  # pyright: ignore[reportAttributeAccessIssue]
    made.__call__ = _method(found, list(fields))
    made.__call__.__annotations__["given"] = str(first.annotation)
    return made


def load_reward(name: str, **fields: Any) -> Reward:
    """The registered reward `name` with its fields set; UnknownNameError names the nearest one."""
    return cast(Reward, parse(reward_class(name), fields))


def unit_of(reward: Any) -> Unit:
    """What one call of the reward gets."""
    return getattr(reward, "unit", "batch")


def sample_kind(reward: Any) -> type[TextSample] | type[VideoSample] | None:
    """The one kind of sample that the reward's annotation names; None: both, or it does not say."""
    _, *given = inspect.signature(type(reward).__call__).parameters.values()
    named = set(SAMPLE_NAMES.findall(str(given[0].annotation))) if given else set()
    kinds = [kind for kind in (TextSample, VideoSample) if named == {kind.__name__}]
    return kinds[0] if kinds else None


def reads_prompt(reward: Any) -> bool:
    """Whether the score depends on the prompt, as far as the reward tells."""
    return getattr(reward, "reads_prompt", True)


def is_async(reward: Any) -> bool:
    """Whether a call of the reward must be awaited."""
    called = type(reward).__call__ if isinstance(reward, RewardConfig) else reward
    return inspect.iscoroutinefunction(called)


def _method(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function` as the `__call__` of a class that holds its further parameters."""

    def call(self: Any, given: Any) -> Any:
        return function(given, **{name: getattr(self, name) for name in names})

    async def call_async(self: Any, given: Any) -> Any:
        return await call(self, given)

    return call_async if inspect.iscoroutinefunction(function) else call
