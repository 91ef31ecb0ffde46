"""What rewards that ask a judge have in their config: an endpoint or a local model, by `kind`."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from mmrl.config import ConfigError
from mmrl.judge.base import Memory
from mmrl.judge.endpoint import EndpointJudge
from mmrl.judge.local import LocalJudge
from mmrl.reward.base import RewardConfig, Unit

JudgeSection = Annotated[EndpointJudge | LocalJudge, Field(discriminator="kind")]


class JudgedReward(RewardConfig):
    """The judge, and how it is asked."""

    judge: JudgeSection

    def check(self) -> None:
        """As the judge can be checked."""
        try:
            self.judge.check()
        except ConfigError as error:
            raise ConfigError(error.reason, key=f"judge.{error.key}") from error

    @property
    def unit(self) -> Unit:
        """As the judge is asked."""
        return self.judge.unit

    @property
    def usual_faults(self) -> dict[str, Any]:
        """As the judge can fail."""
        return self.judge.usual_faults

    @cached_property
    def memory(self) -> Memory:
        """What was asked before."""
        return Memory()
