"""A reward that compares the samples of a prompt says nothing of one sample alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.config import ConfigError
from mmrl.reward import RewardTable
from mmrl.train.loop import load_config
from mmrl.types import Prompt, TextSample
from tests.tiny import video_config

RANK = "def rank(group):\n    return [float(place) for place in range(len(group))]\n"
SAMPLES = [TextSample(Prompt("q"), text) for text in ("one", "two")]


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "mine.py").write_text(RANK)
    return {"path": f"{tmp_path / 'mine.py'}:rank"}


def test_groups_of_one_abstain_with_a_reason(entry: dict[str, str]) -> None:
    table = RewardTable.parse({"rank": entry})
    found = table.judge(SAMPLES, 1)["rank"]
    assert found.values.isnan().all()
    assert found.failures() == ["abstained: a group of 1 sample has nothing to compare"] * 2
    assert table.judge(SAMPLES, 2)["rank"].values.tolist() == [0, 1]


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_an_evaluation_of_one_sample_a_prompt_is_refused(
    tmp_path: Path, entry: dict[str, str], weight: float
) -> None:
    tree = video_config(tmp_path / "run")
    tree["rewards"]["rank"] = {**entry, "weight": weight}
    load_config(tree)
    tree["evaluate"] = {"prompts": tree["prompts"], "samples_per_prompt": 2}
    load_config(tree)
    del tree["evaluate"]["samples_per_prompt"]
    message = r"evaluate\.samples_per_prompt: reward 'rank' compares .* expected >= 2, .* got 1"
    with pytest.raises(ConfigError, match=message):
        load_config(tree)
