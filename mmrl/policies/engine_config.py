"""Sections of a rollout engine: what it takes of the GPU, what its log-probs are held to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.config import Config


class VllmConfig(Config):
    """What vLLM takes of the GPU."""

    gpu_memory: float = Field(default=0.4, gt=0, lt=1)
    """Share for its copy of the weights and its keys and values."""
    max_length: int | None = Field(default=None, ge=1)
    """Tokens of a prompt and its answer; null: the model's own limit."""


class ParityConfig(Config):
    """How far an engine's log-probs may be from the trainer's, and what is done about it."""

    mode: Literal["warn", "correct", "stop"] = "correct"
    """A line in the log, weights of truncated importance sampling, or the end of the run."""
    tolerance: float = Field(default=0.05, gt=0)
    """Largest mean gap in nats a token that `warn` and `stop` let pass."""
    cap: float = Field(default=2.0, ge=1)
    """Largest weight of `correct`."""
