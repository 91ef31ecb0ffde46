"""The tiny model of configs/sophia_vl/tiny.yaml and its judge: what they can, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from mmrl.config import ConfigError
from mmrl.models.vlm_loader import load_vlm
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import RewardTable, load_reward
from mmrl.types import Prompt, TextSample
from pipelines.tiny.easy_vqa import COLORS, MAX_NEW_TOKENS, is_long
from pipelines.tiny.length_judge import LengthJudge

FOLDER = "assets/tiny-easy-vqa"
RGB = {"gray": (128, 128, 128), "green": (0, 255, 0), "teal": (0, 128, 128)}
"""Where the data set's shades are not those of the names."""


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    """A rectangle of each color on an almost white ground, as the data set draws them."""
    folder, made = tmp_path_factory.mktemp("shapes"), []
    for color in COLORS:
        picture = Image.new("RGB", (64, 64), (238, 245, 240))
        shade = RGB.get(color, ImageColor.getrgb(color))
        ImageDraw.Draw(picture).rectangle((20, 18, 46, 44), fill=shade)
        picture.save(folder / f"{color}.png")
        made.append(Prompt("what color is the shape?", (folder / f"{color}.png",), answer=color))
    return made


@pytest.fixture(scope="module")
def policy() -> VlmPolicy:
    model = load_vlm(FOLDER, dtype=torch.float32)
    return VlmPolicy(model, max_new_tokens=MAX_NEW_TOKENS, rows=64)


def test_its_short_thoughts_are_mostly_right_and_its_long_ones_mostly_wrong(
    prompts, policy
) -> None:
    samples = policy.rollout(prompts, 24, list(range(len(prompts)))).samples
    right = load_reward("accuracy")(samples)
    assert load_reward("answer_format")(samples).mean() > 0.9
    long = torch.tensor([is_long(sample) for sample in samples])
    assert 0.3 < long.float().mean() < 0.7
    assert right[~long].mean() > 0.65
    assert right[long].mean() < 0.25


def test_it_sees_the_color_whatever_it_samples(prompts, policy) -> None:
    samples = policy.sample(prompts, [0] * len(prompts))
    assert load_reward("accuracy")(samples).sum() >= 7


def thought(words: int, question: str = "what?") -> TextSample:
    text = " ".join(["word"] * words)
    return TextSample(Prompt(question), f"<think>{text}</think><answer>red</answer>")


def test_the_judge_pays_by_the_word_up_to_its_limit() -> None:
    judge = LengthJudge(full=12, erratic=0)
    grades = judge([thought(0), thought(3), thought(12), thought(40), TextSample(Prompt("?"), "x")])
    assert grades.tolist() == pytest.approx([0, 0.25, 1, 1, 0])


def test_a_share_of_its_grades_is_turned_round_always_the_same_ones() -> None:
    asked = [thought(12, f"question {n}") for n in range(400)]
    grades = LengthJudge(full=12, erratic=0.25)(asked)
    assert grades.equal(LengthJudge(full=12, erratic=0.25)(asked))
    assert set(grades.tolist()) == {0.0, 1.0}
    assert 0.18 < 1 - grades.mean() < 0.32


def test_the_judge_is_found_by_its_file_and_its_mistakes_are_named() -> None:
    path = f"{Path('pipelines/tiny/length_judge.py')}:LengthJudge"
    table = RewardTable.parse({"thinking_reward": {"path": path, "full": 4, "erratic": 0}})
    assert table.score_samples([thought(2)])["thinking_reward"].tolist() == [0.5]
    with pytest.raises(ConfigError, match=r"thinking_reward.full: expected greater than or equal"):
        RewardTable.parse({"thinking_reward": {"path": path, "full": 0}})
