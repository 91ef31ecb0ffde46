"""Wan 2.2: two experts of one policy, and videos that start from an image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.models.pipeline import load_video_model
from mmrl.models.wan import Experts, WanModel
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import VideoSize
from mmrl.types import Prompt
from tests.models.tiny_pipelines import FAMILIES, STEPS, first_frame, save

TEXT = "a red three"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("wan22_a14b", "wan22_5b_i2v", "wan21_i2v")
    return {name: save(FAMILIES[name], tmp_path_factory.mktemp(name)) for name in names}


def policy(folder: Path, size: VideoSize) -> VideoPolicy:
    return VideoPolicy(
        load_video_model(str(folder), size, dtype=torch.float32),
        Sampling("sage", num_steps=STEPS, eta=0.5, shift=None),
        lambda _: StepPlan.all(STEPS),
        rows=4,
    )


def test_each_expert_learns_from_the_steps_on_its_side_of_the_boundary(
    folders: dict[str, Path],
) -> None:
    ours = policy(folders["wan22_a14b"], FAMILIES["wan22_a14b"].size)
    assert isinstance(ours.module, Experts) and isinstance(ours.model, WanModel)
    timesteps = ours.schedule(STEPS).timesteps
    rollout = ours.rollout([Prompt(TEXT)], 2, [1])
    for step in range(STEPS - 1):
        ours.module.zero_grad()
        ours.evaluate(rollout.decisions(slice(step, step + 1)))[
            "denoise"
        ].log_probs.sum().backward()
        learning = {
            name.split(".")[0] for name, p in ours.module.named_parameters() if p.grad is not None
        }
        assert learning == {"transformer" if timesteps[step] >= 800 else "transformer_2"}
    assert timesteps[0] >= 800 > timesteps[STEPS - 2]


def test_checkpointing_reaches_both_experts(folders: dict[str, Path]) -> None:
    ours = policy(folders["wan22_a14b"], FAMILIES["wan22_a14b"].size)
    assert isinstance(ours.module, Experts)
    ours.module.enable_gradient_checkpointing()
    assert all(expert.gradient_checkpointing for expert in ours.module.values())


def test_the_given_frame_has_no_say_in_the_ratio_and_stands_in_the_last_state(
    folders: dict[str, Path],
) -> None:
    """Its mean does not depend on the weights, whatever noise the path put there."""
    folder = folders["wan22_5b_i2v"]
    ours = policy(folder, FAMILIES["wan22_5b_i2v"].size)
    prompts = [Prompt(TEXT, images=(first_frame(folder),))]
    plan = StepPlan.all(STEPS)
    with torch.no_grad():
        [(told, path)] = ours.paths(prompts, 2, [1], ours.schedule(STEPS), plan)
        given = told.tensors["first_frame"]
        torch.testing.assert_close(path.states[-1][:, :, :1], given, rtol=0, atol=1e-5)
        before = ours.predict(path.states[1], 900.0, told)
        for p in ours.module.parameters():
            p.add_(0.01)
        after = ours.predict(path.states[1], 900.0, told)
    assert torch.equal(before[:, :, :1], after[:, :, :1])
    assert not torch.equal(before[:, :, 1:], after[:, :, 1:])


def test_a_prompt_without_an_image_is_refused(folders: dict[str, Path]) -> None:
    ours = policy(folders["wan22_5b_i2v"], FAMILIES["wan22_5b_i2v"].size)
    with pytest.raises(ValueError, match="starts from an image, and 'a red three' has none"):
        ours.sample([Prompt(TEXT)], [1])


def test_a_text_length_that_the_network_would_misread_is_refused(folders: dict[str, Path]) -> None:
    size = FAMILIES["wan22_a14b"].size
    with pytest.raises(ConfigError, match="512 text tokens, got 8"):
        load_video_model(str(folders["wan21_i2v"]), size, dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inside torch.compile
def test_compiling_reaches_both_experts(folders: dict[str, Path]) -> None:
    """Their container's own forward is never called."""
    ours = policy(folders["wan22_a14b"], FAMILIES["wan22_a14b"].size)
    assert isinstance(ours.module, Experts)
    ours.module.compile()
    assert all(expert._compiled_call_impl is not None for expert in ours.module.values())
