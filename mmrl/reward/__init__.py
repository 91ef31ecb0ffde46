"""Rewards: what scores a finished sample, how they are named in a config, what a failure means."""

from mmrl.reward.base import (
    Reward,
    RewardConfig,
    RewardError,
    RewardFailure,
    RewardUnavailable,
    load_reward,
    reward_class,
    rewards,
)
from mmrl.reward.faults import FaultPolicy
from mmrl.reward.scorer import Scorer
from mmrl.reward.table import RewardTable

__all__ = [
    "FaultPolicy",
    "Reward",
    "RewardConfig",
    "RewardError",
    "RewardFailure",
    "RewardTable",
    "RewardUnavailable",
    "Scorer",
    "load_reward",
    "reward_class",
    "rewards",
]
