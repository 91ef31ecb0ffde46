"""The switches of plain GRPO: which bound, which advantage, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.train.loop import initial_state, load_config, start
from tests.tiny import shrunk_config

KINDS = ["gspo", "cispo", "cispo_band", "sapo", "gmpo", "vespo", "dppo", "r2vpo"]


def length_reward(folder: Path) -> str:
    """A reward that differs between all answers of a batch."""
    file = folder / "reward.py"
    file.write_text(
        "def length(samples):\n"
        "    return [sample.num_tokens + place / 10 for place, sample in enumerate(samples)]\n"
    )
    return f"{file}:length"


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
    tree = shrunk_config("grpo", tmp_path, f"surrogate={{kind: {kind}}}")
    tree.pop("clip_high", None)
    tree["rewards"] = {"length": {"path": length_reward(tmp_path)}}
    tree["train"] |= {"updates_per_rollout": 2, "optimizer": {"lr": 1e-3}}
    outcome = start(load_config(tree))
    [line] = (outcome.run / "metrics.jsonl").read_text("utf-8").splitlines()
    metrics = json.loads(line)
    assert metrics["ratio/deviation"] > 0
    assert metrics["grad_norm"] > 0
    assert metrics["skipped_update"] == 0


def test_the_kl_is_weighted_by_the_ratio_where_the_config_says_so(tmp_path: Path) -> None:
    """On the first pass it is the same number, 0; on the second the ratio enters."""
    found = {}
    for weighted in (False, True):
        tree = shrunk_config("grpo", tmp_path / str(weighted), "train.updates_per_rollout=2")
        tree["rewards"] = {"length": {"path": length_reward(tmp_path)}}
        tree["trust_region"]["importance_weighted"] = weighted
        run = start(load_config(tree)).run
        [line] = (run / "metrics.jsonl").read_text("utf-8").splitlines()
        found[weighted] = json.loads(line)["kl/fixed/token"]
    assert found[False] > 0
    assert found[True] > 0
    assert found[True] != found[False]


def test_an_anchor_that_is_a_mean_is_kept_in_float32(tmp_path: Path) -> None:
    tree = shrunk_config("grpo", tmp_path, "precision=bfloat16")
    dtypes = {}
    for share in (1.0, 0.6):
        tree["trust_region"] = {"periodic": {"coefficient": 0.01, "share": share}}
        config = load_config(tree)
        anchor = initial_state(config.build(), config.train).anchors["periodic"]
        dtypes[share] = {weight.dtype for weight in anchor.weights.values()}
    assert dtypes == {1.0: {torch.bfloat16}, 0.6: {torch.float32}}
