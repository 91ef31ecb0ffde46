"""What scores with real weights say of real videos, where both were fetched."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmrl.data.files import cache_folder
from mmrl.data.packaged.templates import is_prompt, positive_prompt
from mmrl.data.packaged.video_real import kind_of
from mmrl.data.video import read_video
from mmrl.evaluate.alignment import retrieval
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from tests.real_weights import needs


def sample(video: torch.Tensor, text: str = "x") -> VideoSample:
    return VideoSample(Prompt(text), video, fps=8.0)


def suite(kind: str) -> list[dict]:
    needs("video_real", "clip_b16_image", "minilm", "mobilenet_v2")
    lines = (cache_folder() / "video_real/index.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [
        e for e in entries if e["metadata"]["pair"] == "matched" and e["metadata"]["kind"] == kind
    ]


@pytest.mark.real
@pytest.mark.slow
def test_both_alignment_scores_know_the_prompts_of_generated_videos() -> None:
    """Measured on text-to-video: AUC 0.97 and 0.93; the adapter never saw these videos."""
    entries = suite("t2v")
    videos = [read_video(cache_folder() / "video_real" / e["video"], 4) for e in entries]
    prompts = [e["prompt"] for e in entries]
    for name, least in (("clip_adapter", 0.88), ("conse_alignment", 0.85)):
        reward = load_reward(name, cache="disk")
        table = (reward.texts(prompts) @ reward.pictures(videos).T).numpy()
        assert retrieval([table]).auc[0] >= least
        own = reward([sample(v, p) for v, p in zip(videos[:2], prompts[:2], strict=True)])
        np.testing.assert_allclose(own.numpy(), np.diag(table)[:2], atol=1e-5)
        assert len(reward.origin()["weights_sha256"]) == 64


@pytest.mark.real
def test_a_real_video_is_smoother_than_its_frames_shuffled_and_moves() -> None:
    needs("vbench_motion", "carphone")
    video = read_video(cache_folder() / "carphone/carphone_pristine.mp4")[:9]
    shuffled = video[[0, 5, 2, 7, 4, 1, 6, 3, 8]]
    smooth = load_reward("motion_smoothness_amt")
    found = smooth([sample(video), sample(shuffled), sample(video[:1].expand(3, -1, -1, -1))])
    assert found[1] < found[0] < found[2]
    assert found[0] > 0.97 and found[2] > 0.99
    assert smooth([sample(video[:2])]).isnan().all()
    moves = load_reward("dynamic_degree", scale="pixels", max_frames=2)
    flow = moves([sample(video[[0, 8]]), sample(video[[0, 0]]), sample(video[:1])])
    assert flow[0] > 1 and flow[1] < 0.5 and flow[2].isnan()


def test_a_prompt_is_the_longest_text_that_is_wanted_also_inside_subgraphs() -> None:
    workflow = {
        "nodes": [
            {"type": "MarkdownNote", "widgets_values": ["a long note about what this is and does"]},
            {
                "type": "CLIPTextEncode",
                "widgets_values": ["blurry, low quality, ugly hands and so on"],
            },
            {
                "type": "CLIPTextEncode",
                "title": "Negative Prompt",
                "widgets_values": ["a b c d e f g"],
            },
            {"type": "ManualSigmas", "widgets_values": ["1.0, 0.9, 0.8, 0.7, 0.6, 0.5"]},
        ],
        "definitions": {
            "subgraphs": [
                {"nodes": [{"type": "X", "widgets_values": {"text": "a red fox\n in the snow"}}]}
            ]
        },
    }
    assert positive_prompt(workflow) == "a red fox in the snow"
    assert positive_prompt({"nodes": []}) is None
    assert not is_prompt("You are a helpful assistant that draws")


@pytest.mark.parametrize(
    ("workflow", "kind"),
    [
        ("video_wan2_2_14B_t2v", "t2v"),
        ("text_to_video_wan", "t2v"),
        ("video_wan2_2_14B_i2v", "i2v"),
        ("api_grok_video_edit", "edit"),
        ("video_wan_vace_14B_v2v", "edit"),
    ],
)
def test_the_name_of_a_workflow_tells_what_it_draws_from(workflow: str, kind: str) -> None:
    assert kind_of(workflow) == kind
