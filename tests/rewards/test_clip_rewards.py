"""CLIP scores: the reference's numbers from its embeddings, and what must change nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from mmrl.models.clip import ClipModel, load_clip
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample, VideoSample

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


def captioned(tmp_path: Path, text: str, answer: str | None, *, pictures: int = 1) -> TextSample:
    """A written caption of a grey picture, with what people wrote about it."""
    path = tmp_path / "grey.png"
    Image.new("RGB", (12, 8), "grey").save(path)
    return TextSample(Prompt("Describe it.", images=(path,) * pictures, answer=answer), text)


# cosine of picture and caption, the cosines of caption and references, their score at w = 2.5
REFERENCED = {
    "the best reference counts": (0.6, [0.1, 0.5, -0.4], 2 * 1.5 * 0.5 / 2.0),
    "one reference": (0.2, [0.5], 0.5),
    "a caption against the picture": (-0.2, [0.5], 0.0),
    "a caption against its references": (0.6, [-0.5, -0.1], 0.0),
}


@pytest.mark.parametrize("case", REFERENCED)
@pytest.mark.parametrize("prefix", ["", "A photo depicts "])
def test_ref_clip_score_is_the_harmonic_mean_with_the_best_reference(
    case: str, prefix: str, tmp_path: Path
) -> None:
    """The prefix stands before the caption and before every reference."""
    of_picture, of_refs, expected = REFERENCED[case]
    known = {f"{prefix}ref {i}": around(cosine) for i, cosine in enumerate(of_refs)}
    known[f"{prefix}caption"] = torch.tensor([1.0, 0.0])
    reward = load_reward("ref_clip_score", model="given", prefix=prefix)
    reward.__dict__["clip"] = ClipModel(
        embed_images=lambda pixels: around(of_picture).expand(len(pixels), -1),
        embed_texts=lambda words: torch.stack([known[word] for word in words]),
        logit_scale=1.0,
    )
    answer = " | ".join(f"ref {index}" for index in range(len(of_refs)))
    for text in ("caption", "<think>hm</think><answer>caption</answer>"):
        found = reward([captioned(tmp_path, text, answer)]).item()
        assert found == pytest.approx(expected, rel=1e-6)


def around(cosine: float) -> torch.Tensor:
    """A unit vector of this cosine with the first axis."""
    return torch.tensor([cosine, math.sqrt(1 - cosine**2)])


def test_a_caption_that_is_its_reference_scores_between_its_clip_score_and_1(
    tmp_path: Path,
) -> None:
    """b = 1, so the score is 2 a / (1 + a); other references beside it change nothing."""
    same = captioned(tmp_path, "a red three", "blue | a red three")
    video = torch.from_numpy(np.array(Image.open(same.prompt.images[0]))).permute(2, 0, 1) / 255
    fields = {"model": "assets/tiny-clip", "prefix": ""}
    picture = [VideoSample(Prompt("a red three"), video[None])]
    a = load_reward("clip_score", **fields)(picture).item()
    assert a > 0.05
    found = load_reward("ref_clip_score", **fields)([same]).item()
    assert found == pytest.approx(2 * a / (1 + a), rel=1e-4)


def test_an_empty_caption_scores_0_and_what_cannot_be_compared_abstains(tmp_path: Path) -> None:
    reward = load_reward("ref_clip_score", model="assets/tiny-clip")
    samples = [
        captioned(tmp_path, "a red three", None),
        captioned(tmp_path, "a red three", " | "),
        captioned(tmp_path, "a red three", "blue", pictures=0),
        captioned(tmp_path, "a red three", "blue", pictures=2),
        captioned(tmp_path, " ", "blue"),
        captioned(tmp_path, "<answer>a red three", "blue"),
        captioned(tmp_path, "blue", "blue"),
    ]
    found = reward(samples)
    assert found[:4].isnan().all()
    assert found[4:6].tolist() == [0, 0]
    assert found[6] > 0
    assert reward([]).shape == (0,)
