"""GUI-Libra and Sweet Spot Learning as pipelines: what they refuse, how negatives are softened."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.data.prompts import DataError
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.step import train_step
from tests.tiny import train_section, vlm_config

SCORES = {
    "gui_step": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, float("nan")]]),
    "gui_format": torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]]),
}
ADVANTAGES = torch.tensor([[1.5, -0.5, -0.5, -0.5], [1.0, -2.0, 1.0, 0.0]])


def config(pipeline: str = "gui_libra", **fields: Any):
    tree = {
        "pipeline": pipeline,
        "output": "runs/x",
        "model": "assets/none",
        "prompts": "none.jsonl",
        "group_size": 4,
        "rewards": {"gui_step": {"weight": 0.9}, "gui_format": {"weight": 0.1}},
        "train": train_section(1),
    }
    return load_config(tree | fields)


def test_negatives_are_scaled_by_the_share_of_right_steps():
    """p = 1/4 and 0 (of three scored): factors 0.9 + 0.5 / 4 = 1.025, capped, and 0.5 + 1.5 / 4."""
    found = config(softening={"initial": 0.5, "slope": 1.5})._soften(ADVANTAGES, SCORES)
    assert found[0].tolist() == pytest.approx([1.5] + [-0.5 * 0.875] * 3)
    assert found[1].tolist() == pytest.approx([1.0, -1.0, 1.0, 0.0])
    assert config()._soften(ADVANTAGES, SCORES)[0].equal(ADVANTAGES[0])


def test_the_release_takes_the_mean_reward_for_the_success():
    """Rewards 1, 0.1, 0.1, 0: 0.3 in the place of 0.25."""
    softening = {"initial": 0.5, "slope": 1.0, "variant": "released"}
    found = config(softening=softening)._soften(ADVANTAGES, SCORES)
    assert found[0].tolist() == pytest.approx([1.5] + [-0.5 * 0.8] * 3)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"softening": {"initial": -0.5}}, "softening", "would reward wrong samples"),
        ({"softening": {"initial": float("nan")}}, "softening", "must be finite"),
        (
            {"rewards": {"gui_click": {"weight": 1}}},
            "rewards",
            "softening needs the reward gui_step",
        ),
        (
            {"rewards": {"gui_step": {"weight": 1}, "gui_format": {"weight": 1.5}}},
            "gui_format",
            r"must lie in \[0, 1\], got 1.5",
        ),
        ({"trust_region": {"fixed": {"coefficient": -1}}}, "coefficient", "greater than"),
        ({"trust_region": {"estimator": "k9"}}, "estimator", "k9"),
        ({"clip_dual": 0.5}, "clip_dual", "greater than 1"),
        ({"group_size": 1}, "group_size", "need >= 2"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_one_line_that_names_the_key(fields, key, message):
    with pytest.raises(ConfigError, match=message) as error:
        config(**fields)
    assert key in str(error.value)


def test_without_softening_no_step_reward_is_needed():
    assert config(softening=None, rewards={"gui_click": {"weight": 1}}).softening is None


def test_sweet_spot_learning_needs_a_reward_with_tiers():
    with pytest.raises(ConfigError, match="has no tiers"):
        config("ssl")
    assert config("ssl", rewards={"ssl_click": {"weight": 1}}).clip == 0.2


def test_a_prompt_that_cannot_be_scored_is_refused_by_its_number(tmp_path: Path):
    tree = vlm_config(tmp_path / "run", tmp_path / "data")
    rewards = config().rewards.describe()
    rewards["gui_step"]["coordinates"] |= {"min_pixels": 112 * 112, "max_pixels": 112 * 112}
    tree |= {"pipeline": "gui_libra", "rewards": rewards}
    path = Path(tree["prompts"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[2]["metadata"] = {"action_type": "Click"}
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="prompt 3 of 6: a click needs a box or a point"):
        load_config(tree).build()


def test_the_spine_hands_advantages_and_raw_scores_to_rescale(tmp_path: Path):
    loaded = load_config(vlm_config(tmp_path / "run", tmp_path / "data"))
    recipe = loaded.build()
    seen = {}

    def rescale(advantages, scores):
        seen["advantages"], seen["scores"] = advantages, scores
        return torch.zeros_like(advantages)

    state = initial_state(recipe, loaded.train)
    metrics = train_step(
        replace(recipe, rescale=rescale), state, loaded.train, Ranks(Accelerator(cpu=True))
    )
    assert set(seen["scores"]) == {"accuracy", "answer_format"}
    mixed = seen["scores"]["accuracy"] + 0.5 * seen["scores"]["answer_format"]
    torch.testing.assert_close(seen["advantages"], group_normalized(mixed))
    assert metrics["grad_norm"] == 0
