"""The switches of plain GRPO: which bound, which advantage, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrl.config import ConfigError
from mmrl.train.loop import load_config, start
from tests.tiny import shrunk_config

KINDS = ["gspo", "cispo", "cispo_band", "sapo", "gmpo", "vespo", "dppo", "r2vpo"]


@pytest.mark.parametrize("key", ["clip_low", "clip_high", "clip_dual"])
def test_a_clip_beside_its_replacement_is_refused(tmp_path: Path, key: str) -> None:
    tree = shrunk_config("grpo", tmp_path, "surrogate={kind: cispo}")
    tree.pop("clip_high", None)
    load_config(tree)
    with pytest.raises(ConfigError, match=rf"^{key}: 'cispo' takes the place of the clip"):
        load_config(tree | {key: 1.5 if key == "clip_dual" else 0.2})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "ppo"}, "surrogate"),
        ({"low": 0.1}, "surrogate"),
        ({"kind": "gspo", "cap": 5.0}, r"surrogate\.(gspo\.)?cap"),
        ({"kind": "gspo", "low": 1.0}, r"surrogate\.(gspo\.)?low"),
        ({"kind": "cispo", "cap": 0.0}, r"surrogate\.(cispo\.)?cap"),
    ],
)
def test_what_a_surrogate_cannot_be_is_one_line_with_its_key(
    tmp_path: Path, given: dict, told: str
) -> None:
    tree = shrunk_config("grpo", tmp_path)
    tree.pop("clip_high", None)
    with pytest.raises(ConfigError, match=rf"^{told}: ") as caught:
        load_config(tree | {"surrogate": given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_surrogate_trains_on_a_rollout_used_twice(tmp_path: Path, kind: str) -> None:
    """The first ratio is exactly 1; rewards of tokens make every group one of two sorts."""
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def length(samples):\n"
        "    return [sample.num_tokens + place / 10 for place, sample in enumerate(samples)]\n"
    )
    tree = shrunk_config("grpo", tmp_path, f"surrogate={{kind: {kind}}}")
    tree.pop("clip_high", None)
    tree["rewards"] = {"length": {"path": f"{reward}:length"}}
    tree["train"] |= {"updates_per_rollout": 2, "optimizer": {"lr": 1e-3}}
    outcome = start(load_config(tree))
    [line] = (outcome.run / "metrics.jsonl").read_text("utf-8").splitlines()
    metrics = json.loads(line)
    assert metrics["ratio/deviation"] > 0
    assert metrics["grad_norm"] > 0
    assert metrics["skipped_update"] == 0
