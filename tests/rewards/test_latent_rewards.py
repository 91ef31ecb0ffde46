"""HyLaR's rewards: the form of an answer with spans, repetition, and how both enter the sum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.mixing import weighted_sum
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample
from pipelines.vision_language.hylar import punish_repetition

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/depo.json").read_text())["rewards"]
SPAN = "<|canvas_start|><|canvas|><|canvas|><|canvas_end|>"
GOOD = f"<think>a</think>{SPAN}<think>b</think><answer>B</answer>"


def score(name: str, text: str) -> float:
    return load_reward(name)([TextSample(Prompt("q", answer="B"), text)]).item()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: c["pred"][:12])
def test_the_sum_of_the_golden_case(case: dict) -> None:
    format_, repetition = (score(n, case["pred"]) for n in ("latent_format", "repetition"))
    assert format_ == case["format"]
    assert repetition == pytest.approx(case["repetition"], abs=1e-6)
    scores = {
        "accuracy": torch.tensor([[case["correct"]]]),
        "latent_format": torch.tensor([[format_]]),
        "repetition": torch.tensor([[repetition]]),
    }
    mixed = punish_repetition(scores)
    assert mixed["accuracy"].item() == case["accuracy"]
    weights = {"accuracy": 0.9, "latent_format": 0.1, "repetition": 0.0}
    assert weighted_sum(mixed, weights).item() == pytest.approx(case["overall"], abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        f" {GOOD} \n",
        f"<think>a</think>\n{SPAN}\n<think>b</think>\n<answer>B</answer>",
        f"<think>a</think>{SPAN}<think>b</think>{SPAN}<think>c</think><answer>B</answer>",
    ],
)
def test_one_span_or_more_between_thoughts_is_the_form(text: str) -> None:
    assert score("latent_format", text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><think>b</think><answer>B</answer>",
        f"<think>a</think>{SPAN}<answer>B</answer>",
        f"{SPAN}<think>b</think><answer>B</answer>",
        f"{GOOD} and more",
        f"{GOOD}<answer>B</answer>",
        GOOD.replace(">b<", "><"),
        GOOD.replace(">a<", ">a<think>x<"),
        GOOD.replace("<|canvas_end|>", ""),
        GOOD.replace("<|canvas|>", ""),
        "",
    ],
)
def test_other_forms_score_0(text: str) -> None:
    assert score("latent_format", text) == 0.0


def test_repetition_is_the_largest_of_its_shares() -> None:
    assert score("repetition", "one two three") == 0.0
    assert score("repetition", "") == 0.0
    assert score("repetition", "a\nb\na\na") == 0.5
    block = " ".join(f"w{i}" for i in range(25))
    assert score("repetition", f"{block} {block} x y") == pytest.approx(50 / 52)


def test_accuracy_stays_where_nothing_repeats_or_nobody_watches() -> None:
    accuracy = torch.tensor([[1.0, 0.0, float("nan")]])
    watched = {"accuracy": accuracy, "repetition": torch.tensor([[0.5, 0.6, 0.1]])}
    found = punish_repetition(watched)["accuracy"]
    assert found[0, :2].tolist() == [1.0, -1.0]
    assert found[0, 2].isnan()
    assert punish_repetition({"accuracy": accuracy})["accuracy"] is accuracy
