"""What a rollout of a video model holds: noise, shares, first pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from mmrl.models.pipeline import load_video_model
from mmrl.ops.gaussian import log_prob
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.types import Prompt
from tests.models.tiny_pipelines import FAMILIES, STEPS, save
from tests.toy_video import PROMPTS, toy_policy


def test_every_sample_and_every_trained_step_has_the_same_share_of_the_loss() -> None:
    weights = toy_policy(num_steps=4).rollout(PROMPTS, 5, [1, 2]).weights["denoise"]
    assert torch.equal(weights, torch.full((10, 3), 1 / 30, dtype=weights.dtype))


def test_a_rollout_holds_the_states_that_its_log_probs_are_of() -> None:
    rollout = toy_policy(num_steps=4).rollout(PROMPTS, 3, [1, 2])
    behavior, drawn = rollout.behavior["denoise"], rollout.drawn["denoise"]
    assert behavior.mean is not None and behavior.scale is not None
    found = [
        log_prob(drawn[:, t], behavior.mean[:, t], behavior.scale[:, t])
        for t in range(drawn.shape[1])
    ]
    torch.testing.assert_close(torch.stack(found, dim=1), behavior.log_probs)
    assert drawn.data_ptr() == rollout.replay.after.data_ptr()  # no copy


def test_a_rollout_takes_first_order_steps_whatever_solver_evaluates() -> None:
    policy = toy_policy()
    other = replace(policy, sampling=replace(policy.sampling, solver="unipc"))
    drawn, same = (p.rollout(PROMPTS, 2, [1, 2]).samples for p in (policy, other))
    assert all(torch.equal(a.video, b.video) for a, b in zip(drawn, same, strict=True))


def test_every_prompt_starts_from_its_own_first_picture(tmp_path: Path) -> None:
    """In one batch each prompt's group is told what it is told alone; a second picture is none."""
    family = FAMILIES["wan21_i2v"]
    pictures = [tmp_path / f"{colour}.png" for colour in ("red", "blue", "green")]
    for path in pictures:
        Image.new("RGB", (family.size.width, family.size.height), path.stem).save(path)
    red, blue, green = pictures
    prompts = [Prompt("a three", images=(red, green)), Prompt("a three", images=(blue, red))]
    model = load_video_model(
        str(save(family, tmp_path / "model")), family.size, dtype=torch.float32
    )
    policy = VideoPolicy(
        model, Sampling("sage", num_steps=STEPS, eta=0.5, shift=3.0), toy_policy().plan, rows=4
    )
    together = policy.tell(prompts, 2)
    for index, prompt in enumerate(prompts):
        alone = policy.tell([Prompt(prompt.text, images=prompt.images[:1])], 2)
        mine = together.rows(slice(2 * index, 2 * index + 2))
        assert mine.tensors.keys() == alone.tensors.keys()
        for name, value in alone.tensors.items():
            torch.testing.assert_close(mine.tensors[name], value, msg=name)
    differ = [not torch.equal(value[0], value[2]) for value in together.tensors.values()]
    assert any(differ)
