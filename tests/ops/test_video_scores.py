"""Scores of a video from numbers found in its frames, against VBench's rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.ops.video_scores import (
    interpolation_smoothness,
    is_dynamic,
    temporal_consistency,
    top_flow,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())


def cases(fn: str) -> pytest.MarkDecorator:
    chosen = [case for case in GOLDEN if case["fn"] == fn]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["id"])


@cases("temporal_consistency")
def test_consistency_equals_the_reference(case: dict) -> None:
    frames = torch.tensor(case["in"]["frame_emb"], dtype=torch.float64)
    assert temporal_consistency(frames).item() == pytest.approx(case["out"]["score"], rel=1e-12)


def test_one_frame_has_no_consistency_and_scale_and_order_of_the_rest_are_what_count() -> None:
    frames = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert temporal_consistency(frames[:1]).isnan()
    assert temporal_consistency(3 * frames) == pytest.approx(temporal_consistency(frames).item())
    assert temporal_consistency(frames.sort(0).values) != temporal_consistency(frames)


@cases("dynamic_degree")
def test_dynamic_degree_equals_the_reference(case: dict) -> None:
    given, expected = case["in"], case["out"]
    found = is_dynamic(
        given["top5pct_flow"], short_side=given["short_side"], num_frames=given["num_frames"]
    )
    assert found == (expected["dynamic"], expected["threshold"], expected["needed"])


def test_the_top_flow_is_the_mean_length_of_the_fastest_pixels() -> None:
    flow = torch.zeros(2, 10, 10)
    flow[:, 0, :5] = torch.tensor([3.0, 4.0])[:, None]
    assert top_flow(flow) == pytest.approx(5.0)
    assert top_flow(flow, share=0.1) == pytest.approx(2.5)


def test_smoothness_of_interpolation_is_1_at_equality_and_0_between_black_and_white() -> None:
    frames = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert interpolation_smoothness(frames, frames) == 1
    assert interpolation_smoothness(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)) == 0
