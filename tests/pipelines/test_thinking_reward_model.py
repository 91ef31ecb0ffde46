"""A grader trained on labelled traces: it learns, it loads as a judge, bad labels stay out."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError, parse
from mmrl.reward import RewardTable
from mmrl.types import Prompt, TextSample
from pipelines.tiny.qwen2_5_vl import SPECIAL, build_processor
from pipelines.tiny.qwen_models import Size, build_model
from pipelines.vision_language.thinking_reward_model import (
    ThinkingRewardModel,
    balanced,
    grade_of,
    main,
    split,
)

GRADES = {"because it follows": 0.9, "just a guess": 0.1}
INSTRUCTION = "{question} {response}"


def write_traces(path: Path) -> None:
    """Ten questions with a good and a bad trace each, and three traces of no use."""
    lines = [
        {"text": f"what is {n}?", "metadata": {"response": text, "score": score}}
        for n in range(10)
        for text, score in GRADES.items()
    ]
    lines += [
        {"text": "what?", "metadata": {"response": "x", "score": 7}},
        {"text": "what?", "metadata": {"response": "x"}},
        {"text": "what?", "metadata": {"score": 0.5}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    processor = build_processor([*GRADES, "what is"])
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    model = build_model("qwen2_5_vl", ids, len(tokenizer), Size(width=64, layers=1, vision=1))
    model.save_pretrained(folder)  # pyright: ignore
    processor.save_pretrained(folder)


def test_a_trained_grader_is_a_judge_that_knows_good_reasoning(tmp_path: Path) -> None:
    write_traces(tmp_path / "traces.jsonl")
    write_model(tmp_path / "start")
    arguments = {
        "model": tmp_path / "start",
        "traces": tmp_path / "traces.jsonl",
        "output": tmp_path / "run",
        "instruction": json.dumps(INSTRUCTION),
        "epochs": 25,
        "batch": 8,
        "lr": 1e-2,
        "held_out": 0.2,
        "precision": "float32",
    }
    main([f"{key}={value}" for key, value in arguments.items()])
    found = json.loads((tmp_path / "run/evaluation.json").read_text("utf-8"))
    assert (found["traces"], found["clean"], found["trained"], found["held_out"]) == (23, 20, 16, 4)
    assert found["held_out_readable"] == 1
    assert found["held_out_error"] < 0.05
    judge = {"kind": "local", "model": str(tmp_path / "run/model"), "max_new_tokens": 12}
    reward = {"thinking_reward": {"judge": judge, "instruction": INSTRUCTION}}
    samples = [TextSample(Prompt("what is 3?"), text) for text in GRADES]
    scores = RewardTable.parse(reward).score_samples(samples)["thinking_reward"]
    assert scores.tolist() == pytest.approx(list(GRADES.values()))


def trace(text: str, score: float) -> Prompt:
    return Prompt(text, metadata={"response": "x", "score": score})


def test_all_traces_of_a_question_stand_on_one_side() -> None:
    traces = [trace(f"question {n % 7}", n / 70) for n in range(70)]
    learned, back = split(traces, 0.3)
    assert len(learned) + len(back) == 70
    assert {one.text for one in back}.isdisjoint(one.text for one in learned)
    assert len({one.text for one in back}) == 2


def test_no_tenth_of_the_scale_has_more_than_its_share() -> None:
    traces = [trace(str(n), score) for n, score in enumerate([0.05] * 30 + [0.95] * 3 + [1.0] * 2)]
    kept = balanced(traces, 4, random.Random(0))
    assert sorted(grade_of(one) or 0 for one in kept)[:4] == [0.05] * 4
    assert len(kept) == 8


def test_mistakes_are_one_line(capsys, tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text('{"text": "what?"}\n')
    for arguments, message in (
        (["model=x", "output=y"], "config error: traces: missing"),
        (["model=x", f"traces={tmp_path}/traces.jsonl", "output=y"], "error: .*0 of 1 traces"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert re.search(message, capsys.readouterr().err)


def test_a_share_of_all_questions_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out: expected less than 1"):
        parse(ThinkingRewardModel, {"model": "a", "traces": "b", "output": "c", "held_out": 1})
