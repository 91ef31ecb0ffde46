"""The trained model that thinks in latents can do what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.data.prompts import load_prompts
from mmrl.models.vlm_loader import load_vlm
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.reward import load_reward
from pipelines.tiny.hylar import CONFUSED, LATENTS

HELD_OUT = "assets/small_digits/heldout.jsonl"


@pytest.fixture(scope="module")
def policy() -> LatentVlmPolicy:
    model = load_vlm("assets/tiny-hylar", dtype=torch.float32)
    return LatentVlmPolicy(model, 24, 80, kappa=6000.0, max_latents=LATENTS)


def test_it_imagines_before_it_answers_and_confuses_only_what_it_was_taught_to(policy) -> None:
    prompts = load_prompts(HELD_OUT)
    samples = policy.sample(prompts, [0] * len(prompts))
    assert load_reward("latent_format")(samples).mean() > 0.95
    right = load_reward("accuracy")(samples)
    sure = torch.tensor([int(p.answer or "") not in CONFUSED for p in prompts])
    assert right.mean() == pytest.approx(0.481, abs=0.02)
    assert right[sure].mean() == pytest.approx(0.764, abs=0.02)


def test_drawn_latents_keep_the_form_of_an_answer(policy) -> None:
    prompts = load_prompts(HELD_OUT)[:10]
    rollout = policy.rollout(prompts, 4, list(range(10)))
    assert load_reward("latent_format")(rollout.samples).mean() > 0.9


def test_both_sides_show_handwriting_of_their_own() -> None:
    sides = {}
    for name in ("train", "heldout"):
        path = Path(f"assets/small_digits/{name}.jsonl")
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        sides[name] = {(path.parent / line["images"][0]).read_bytes() for line in lines}
        assert len({line["answer"] for line in lines}) == 10
    assert not sides["train"] & sides["heldout"]
