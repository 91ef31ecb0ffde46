"""CLIP scores: the reference's numbers from its embeddings, and what must change nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from mmrl.models.clip import ClipModel, load_clip
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())
CLIPS = ("assets/tiny-clip", "assets/tiny-clip/transformers", "assets/tiny-pick")
SCORERS = {
    "clip_score": "assets/tiny-clip",
    "hps": "assets/tiny-clip",
    "pick_score": "assets/tiny-pick",
}


def cases(function: str) -> list[dict]:
    return [case for case in GOLDEN if case["fn"] == function]


def unit(rows: list[list[float]]) -> torch.Tensor:
    return normalize(torch.tensor(rows, dtype=torch.float64), dim=-1)


def scores(
    name: str, images: torch.Tensor, texts: torch.Tensor, logit_scale: float = 1.0, **fields
) -> list[float]:
    """A reward on a CLIP of these embeddings: the videos' frames in order, a text each."""
    asked = {f"text {index}": row for index, row in enumerate(texts)}
    model = ClipModel(
        embed_images=lambda frames: images[: len(frames)],
        embed_texts=lambda words: torch.stack([asked[word] for word in words]),
        logit_scale=logit_scale,
    )
    reward = load_reward(name, model="given", **fields)
    reward.__dict__["clip"] = model
    frames = torch.rand(len(texts), len(images) // len(texts), 3, 8, 8)
    samples = [VideoSample(Prompt(word), video) for word, video in zip(asked, frames, strict=True)]
    return reward(samples).tolist()


@pytest.mark.parametrize("case", cases("clipscore"), ids=lambda c: c["id"])
def test_clip_score_is_the_reference_s_pair_by_pair(case: dict) -> None:
    given = case["in"]
    images, texts = unit(given["image_emb"]), unit(given["text_emb"])
    found = scores("clip_score", images, texts, weight_factor=given["w"])
    assert found == pytest.approx(case["out"]["per_pair"], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("case", cases("video_clipscore"), ids=lambda c: c["id"])
def test_clip_score_of_a_video_clamps_the_mean_of_its_frames(case: dict) -> None:
    """Not the mean of clamped frames, which forgives a frame that contradicts its prompt."""
    given, out = case["in"], case["out"]
    images, texts = unit(given["frame_emb"]), unit([given["text_emb"]])
    (found,) = scores("clip_score", images, texts, weight_factor=given["w"])
    assert found == pytest.approx(out["clamp_of_mean"], rel=1e-12)
    assert abs(found - out["mean_of_clamped"]) > 0.1
    (cosine,) = scores("pick_score", images, texts, scale="cosine")
    assert cosine == pytest.approx(out["mean_cosine"], rel=1e-12)


@pytest.mark.parametrize("case", cases("pickscore"), ids=lambda c: c["id"])
def test_pick_score_is_the_reference_s_logit(case: dict) -> None:
    given, out = case["in"], case["out"]
    images, scale = unit(given["image_embs"]), math.exp(given["logit_scale_log"])
    texts = unit([given["text_emb"]]).expand(len(images), -1)
    raw = scores("pick_score", images, texts, scale)
    assert raw == pytest.approx(out["logits"], rel=1e-9)
    assert torch.tensor(raw).softmax(0).tolist() == pytest.approx(out["probs"], rel=1e-5, abs=1e-30)
    over_26 = scores("pick_score", images, texts, scale, scale="div26")
    assert over_26 == pytest.approx(out["norm26"], rel=1e-9)


@pytest.mark.parametrize("case", cases("hps"), ids=lambda c: c["id"])
def test_hps_is_the_cosine_and_tables_print_it_times_100(case: dict) -> None:
    cosine = case["in"]["cosine"]
    images, texts = unit([[cosine, math.sqrt(1 - cosine**2)]]), unit([[1.0, 0.0]])
    (found,) = scores("hps", images, texts, 100.0)
    assert found == pytest.approx(case["out"]["hps"], rel=1e-12)
    assert 100 * found == pytest.approx(case["out"]["benchmark_x100"], rel=1e-12)


def batch(count: int) -> list[VideoSample]:
    """Videos of several lengths and sizes, with texts of several lengths."""
    torch.manual_seed(0)
    words = ("a red three", "blue", "a green seven moving left", "a yellow one moving up")
    shapes = ((1, 32, 32), (5, 32, 32), (3, 40, 24), (9, 32, 48))
    return [
        VideoSample(Prompt(words[i % 4]), torch.rand(shapes[i % 3][0], 3, *shapes[i % 3][1:]))
        for i in range(count)
    ]


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("rows", [1, 3, 256])
def test_neither_order_nor_size_of_a_batch_changes_a_score(name: str, rows: int) -> None:
    samples = batch(7)
    alone = torch.cat([load_reward(name, model=SCORERS[name])([one]) for one in samples])
    reward = load_reward(name, model=SCORERS[name], rows=rows)
    torch.testing.assert_close(reward(samples), alone, atol=1e-5, rtol=1e-5)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(rows))
    shuffled = reward([samples[i] for i in order.tolist()])
    torch.testing.assert_close(shuffled, alone[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", CLIPS)
def test_a_text_past_the_limit_is_the_text_cut_there_and_more_words_change_nothing(
    model: str,
) -> None:
    clip, colours = load_clip(model), ["red", "blue", "green"]
    words = [colours[index % 3] for index in range(200)]
    with torch.no_grad():
        whole, longer = clip.embed_texts([" ".join(words), " ".join([*words, "three", "left"])])
        by_length = clip.embed_texts([" ".join(words[:count]) for count in range(1, 200)])
    assert torch.equal(whole, longer)
    gaps = (by_length - whole).norm(dim=-1)
    limit = int((gaps < 1e-5).nonzero()[0]) + 1
    assert 1 < limit < 200 and (gaps[limit - 1 :] < 1e-5).all()
    assert (gaps[: limit - 1] > 1e-4).all()
