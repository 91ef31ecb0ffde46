"""Rewards that ask a judge: a real tiny model grades, and what is no grade is NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.judge.base import Reply
from mmrl.judge.pictures import pictures_of
from mmrl.models.vlm_loader import adapt
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import RewardTable
from mmrl.reward.base import Unit
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt, TextSample, VideoSample
from pipelines.tiny.qwen2_5_vl import SPECIAL, build_processor
from pipelines.tiny.qwen_models import Size, build_model
from rewards.thinking_reward import ThinkingReward
from rewards.unified_reward import UnifiedReward
from rewards.vlm_judge import read_yes

MODEL = "assets/tiny-qwen2_5_vl"
FRAMES = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 3, 8, 12)


def grader(folder: Path, replies: dict[str, str], shown: Sequence[Path] = ()) -> dict[str, Any]:
    """The config of a local judge that was taught these replies to these questions."""
    torch.manual_seed(0)
    processor = build_processor(["yes", "no", *replies])
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    module = build_model("qwen2_5_vl", ids, len(tokenizer), Size(width=64, layers=1, vision=1))
    policy = VlmPolicy(adapt(module.eval(), processor), max_new_tokens=20, rows=8)
    examples = [Example(Prompt(text, tuple(shown)), reply) for text, reply in replies.items()]
    sft(policy, examples, SftConfig(steps=60, batch=6, lr=1e-2))
    policy.save_pretrained(folder)
    return {"kind": "local", "model": str(folder), "max_new_tokens": 20, "rows": 8}


def scores(name: str, samples: Sequence[Any], **fields: Any) -> list[float]:
    table = RewardTable.parse({name: {**fields, "faults": {"budget": 1}}})
    return table.score_samples(samples)[name].tolist()


def test_a_local_model_that_learned_to_grade_is_a_thinking_reward(tmp_path: Path) -> None:
    """Saved by training, loaded by path; a reply in words is no grade."""
    wanted = {"red": "<answer>0.9</answer>", "dim": "0.2", "odd": "no grade"}
    instruction = "{response}"
    judge = grader(tmp_path / "judge", wanted)
    samples = [TextSample(Prompt("what?"), text) for text in wanted]
    found = scores("thinking_reward", samples, judge=judge, instruction=instruction)
    assert found[:2] == pytest.approx([0.9, 0.2])
    assert math.isnan(found[2])


def test_a_local_models_yes_probability_is_that_of_its_first_token(tmp_path: Path) -> None:
    wanted = {"red": "yes", "dim": "no", "odd": "maybe"}
    question = "{response}"
    judge = grader(tmp_path / "judge", wanted)
    samples = [TextSample(Prompt("what?"), text) for text in wanted]
    yes, no, _ = scores("vlm_judge", samples, judge=judge, question=question)
    assert yes > 0.9 and no < 0.1


def test_a_videos_final_score_is_a_share_of_five(tmp_path: Path) -> None:
    """The judge sees the frame it was taught on, pixel for pixel."""
    video = VideoSample(Prompt("red"), torch.full((3, 3, 32, 32), 0.2))
    [frame] = pictures_of(video, num_frames=1, side=32)
    assert not isinstance(frame, Path)
    frame.save(tmp_path / "frame.png")
    judge = grader(tmp_path / "judge", {"red": "Final Score: 4"}, [tmp_path / "frame.png"])
    fields = {"judge": judge, "instruction": "{caption}", "num_frames": 1, "side": 32}
    assert scores("unified_reward", [video], **fields) == pytest.approx([0.8])


def test_yes_and_no_are_summed_over_spellings_and_neither_is_no_score() -> None:
    first = {"Yes": math.log(0.3), " yes": math.log(0.3), "No": math.log(0.2), "the": -0.1}
    assert read_yes(Reply("", first)).score == pytest.approx(0.75, rel=1e-12)
    nothing = read_yes(Reply("hm", {"the": -0.1}))
    assert math.isnan(nothing.score) and (nothing.problem, nothing.text) == ("no score", "hm")


def test_a_video_is_shown_as_frames_of_the_size_asked_for_and_an_answer_as_its_prompt() -> None:
    video = VideoSample(Prompt("a fade"), FRAMES)
    shown = pictures_of(video, num_frames=2, side=20)
    assert [image.size for image in shown if not isinstance(image, Path)] == [(20, 20)] * 2
    [first, last] = pictures_of(video, num_frames=2)
    assert not isinstance(first, Path) and not isinstance(last, Path)
    assert first.size == (12, 8)
    assert first.getpixel((0, 0)) == (0, 0, 0) and last.getpixel((0, 0)) == (170, 170, 170)
    text = TextSample(Prompt("what?", (Path("a.png"),)), "x")
    assert pictures_of(text, num_frames=2, side=20) == (Path("a.png"),)


def test_a_question_about_nothing_is_refused() -> None:
    judge = {"kind": "local", "model": MODEL}
    with pytest.raises(ConfigError, match=r"vlm_judge.question: has neither \{prompt\}"):
        RewardTable.parse({"vlm_judge": {"judge": judge, "question": "Is it good?"}})


@pytest.mark.parametrize("cls", [ThinkingReward, UnifiedReward])
def test_a_judge_says_how_it_is_asked_and_how_it_may_fail(cls: type) -> None:
    local = cls(judge={"kind": "local", "model": MODEL})
    far = cls(judge={"kind": "endpoint", "url": "http://a/v1/", "model": "m"})
    units: list[Unit] = [local.unit, far.unit]
    assert units == ["batch", "sample"]
    assert (local.usual_faults, far.usual_faults["timeout_s"]) == ({}, 60)
    assert far.judge.url == "http://a/v1"
