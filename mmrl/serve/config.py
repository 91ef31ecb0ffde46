"""The file `mmrl serve` reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from mmrl.config import Config, ConfigError


class ScorerConfig(Config):
    """One scorer: a reward, and the processes that run it."""

    reward: str | None = None
    """A registered reward; null: the scorer's own name."""
    path: str | None = None
    """`file.py:name` of a class or a function instead of a registered name."""
    fields: dict[str, Any] = Field(default={})
    """The reward's own config."""
    python: str = sys.executable
    """The interpreter of its workers: an environment of its own where mmrl is installed."""
    environment: dict[str, str] = Field(default={})
    """Variables of its workers, such as CUDA_VISIBLE_DEVICES."""
    workers: int = Field(default=1, ge=1)
    max_batch: int = Field(default=32, ge=1)
    """Samples of one call, of one or of several clients."""
    max_wait_ms: float = Field(default=2.0, ge=0)
    """How long a call waits for more samples to join it."""
    max_queue: int = Field(default=1024, ge=1)
    """Samples that may wait; more are refused with status 503, and with 413 in one request."""
    timeout_s: float = Field(default=60.0, gt=0)
    """A worker that takes longer for one call is killed and started again."""
    start_timeout_s: float = Field(default=600.0, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> ScorerConfig:
        if self.reward is not None and self.path is not None:
            raise ConfigError("give `reward` or `path`, not both", key="path")
        return self


class ServeConfig(Config):
    """Where the service listens, who may ask, and what it scores."""

    host: str = "127.0.0.1"
    port: int = Field(default=8800, ge=0, le=65535)
    token_env: str = "MMRL_REWARD_TOKEN"
    """The variable that holds the token which every request must carry."""
    max_body_mb: float = Field(default=256.0, gt=0)
    scorers: dict[str, ScorerConfig] = Field(min_length=1)

    @property
    def max_body(self) -> int:
        """Bytes of the largest body."""
        return int(self.max_body_mb * 2**20)


def read_token(variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """The token; ConfigError says how to set one."""
    token = environment.get(variable, "").strip()
    if not token:
        raise ConfigError(
            f"the variable {variable} holds no token; set one, such as "
            f"`export {variable}=$(openssl rand -hex 24)`",
            key="token_env",
        )
    return token
