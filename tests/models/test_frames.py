"""Coordinates that a reward reads in another frame than the model's are refused."""

import pytest

from mmrl.config import ConfigError
from mmrl.models.frames import check_frames
from mmrl.reward import load_reward
from tests.tiny_vlm import random_model


@pytest.fixture(scope="module")
def processor():
    return random_model("qwen2_5_vl").processor


def rewards(**coordinates):
    return {"gui_step": load_reward("gui_step", coordinates=coordinates), "accuracy": object()}


def test_the_processors_own_bounds_pass(processor):
    side = processor.image_processor.size["longest_edge"]
    check_frames(rewards(space="resized", factor=28, min_pixels=side, max_pixels=side), processor)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"factor": 32}, "factor"), ({"max_pixels": 10**6}, "max_pixels"), ({"min_pixels": 1}, "min")],
)
def test_another_factor_or_bound_names_reward_and_key(processor, change, key):
    side = processor.image_processor.size["longest_edge"]
    fields = {"space": "resized", "factor": 28, "min_pixels": side, "max_pixels": side} | change
    with pytest.raises(ConfigError, match=f"rewards.gui_step.coordinates.{key}"):
        check_frames(rewards(**fields), processor)


def test_other_spaces_and_other_processors_are_left_alone(processor):
    check_frames(rewards(space="thousand", factor=32), processor)
    check_frames(rewards(space="resized"), object())
    check_frames(rewards(space="resized"), random_model("internvl").processor)
