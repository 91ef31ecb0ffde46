"""Rewards of pictures and frames that need little: JPEG size, flicker, HPS, GenEval's rules."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn.functional import pad

from mmrl.config import ConfigError
from mmrl.data.geneval import (
    Clause,
    Detection,
    Wanted,
    clause_scores,
    correct,
    iou,
    read_wanted,
    relations,
    soft_count,
)
from mmrl.evaluate.vbench import QUALITY, normalized, quality_score, total_score
from mmrl.models.clip import load_clip
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from rewards.jpeg_size import wanted

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())
CLIP = "assets/tiny-clip"


def cases(function: str) -> list[dict]:
    return [case for case in GOLDEN if case["fn"] == function]


def sample(video: torch.Tensor, text: str = "a red three", **metadata: str) -> VideoSample:
    return VideoSample(Prompt(text, metadata=metadata), video)


@pytest.mark.parametrize("case", cases("temporal_flickering"), ids=lambda c: c["id"])
def test_flickering_equals_the_reference(case: dict) -> None:
    frames = torch.tensor(case["in"]["frames_u8"], dtype=torch.float32) / 255
    video = frames[:, None].expand(-1, 3, -1, -1)
    found = load_reward("temporal_flickering")([sample(video)])
    assert found.item() == pytest.approx(case["out"]["score"], rel=1e-12)


def test_still_frames_do_not_flicker_black_and_white_ones_do_and_one_frame_cannot() -> None:
    still, one = torch.full((4, 3, 8, 8), 0.3), torch.zeros(1, 3, 8, 8)
    flicker = torch.tensor([0.0, 1.0] * 3).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    found = load_reward("temporal_flickering")([sample(v) for v in (still, flicker, one)])
    assert found[:2].tolist() == [1.0, 0.0] and found[2].isnan()


def test_a_jpeg_grows_with_detail_and_compressibility_is_its_negative() -> None:
    torch.manual_seed(0)
    flat, noise = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    broken = torch.full((1, 3, 64, 64), torch.nan)
    videos = [sample(v) for v in (flat, blurred, noise, broken)]
    sizes = load_reward("jpeg_size")(videos)
    assert sizes[0] < sizes[1] < sizes[2] and sizes[3].isnan()
    plain = load_reward("jpeg_size", want="compressible")(videos)
    assert torch.allclose(plain[:3], -sizes[:3] / 500)


@pytest.mark.parametrize("case", cases("jpeg_reward"), ids=lambda c: c["id"])
def test_a_jpeg_s_size_becomes_the_reference_s_two_rewards(case: dict) -> None:
    sizes = torch.tensor([case["in"]["size_kB_1000"]], dtype=torch.float64)
    for want, name in (
        ("incompressible", "incompressibility"),
        ("compressible", "compressibility"),
    ):
        assert wanted(sizes, want).item() == pytest.approx(case["out"][name], rel=1e-12)


def test_hps_pads_to_a_square_and_has_no_logit_scale() -> None:
    torch.manual_seed(0)
    wide = torch.rand(1, 3, 16, 32)
    square = pad(wide, (0, 0, 8, 8))
    found = load_reward("hps", model=CLIP)([sample(wide), sample(square)])
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-5)
    cosine = load_clip(CLIP).video_text_cosine([square], ["a red three"], num_frames=1, rows=1)
    assert found[1].item() == pytest.approx(cosine.item(), abs=1e-5)


def test_hps_takes_a_checkpoint_as_released_and_refuses_another_model(tmp_path: Path) -> None:
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    weights = model.state_dict()
    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "hps.pt")
    video = sample(torch.rand(2, 3, 32, 32))
    plain = load_reward("hps", model=CLIP)([video])
    loaded = load_reward("hps", model=CLIP, checkpoint=tmp_path / "hps.pt")([video])
    assert loaded.item() == pytest.approx(plain.item(), abs=1e-6)
    torch.save({"state_dict": dict(list(weights.items())[:-1])}, tmp_path / "part.pt")
    with pytest.raises(ConfigError, match="does not fit the model"):
        load_clip(CLIP, checkpoint=tmp_path / "part.pt")
    with pytest.raises(ConfigError, match="no such file"):
        load_clip(CLIP, checkpoint=tmp_path / "none.pt")


@pytest.mark.parametrize("case", cases("vbench_quality"), ids=lambda c: c["id"])
def test_vbench_s_quality_equals_the_reference(case: dict) -> None:
    raw, expected = case["in"]["raw"], case["out"]
    assert quality_score(raw) == pytest.approx(expected["quality_score"], rel=1e-12)
    for name in QUALITY:
        assert normalized(name, raw[name]) == pytest.approx(expected["normalized"][name], rel=1e-12)
    with pytest.raises(ValueError, match="no score for imaging quality"):
        quality_score({name: 0.5 for name in QUALITY if name != "imaging quality"})


@pytest.mark.parametrize("case", cases("vbench_total"), ids=lambda c: c["id"])
def test_vbench_s_total_equals_the_reference(case: dict) -> None:
    found = total_score(case["in"]["quality"], case["in"]["semantic"])
    assert found == pytest.approx(case["out"]["total"], rel=1e-12)


@pytest.mark.parametrize("case", cases("geneval_position"), ids=lambda c: c["id"])
def test_geneval_s_positions_equal_the_reference(case: dict) -> None:
    given = case["in"]
    one, other = tuple(given["box_a"]), tuple(given["box_b"])
    found = relations(one, other, shrink=given["threshold"])
    assert sorted(found) == case["out"]["relations"]
    assert iou(one, other) == pytest.approx(case["out"]["iou"], rel=1e-12)


@pytest.mark.parametrize("case", cases("geneval_soft_count"), ids=lambda c: c["id"])
def test_geneval_s_counts_equal_the_reference(case: dict) -> None:
    given, expected = case["in"], case["out"]
    assert soft_count(given["required"], given["found"]) == pytest.approx(expected["soft"])
    found = [Detection("cup", (0, 0, 1, 1), 0.9)] * given["found"]
    clause = [Clause("cup", given["required"])]
    assert correct(clause, found, strict=True) == expected["strict"]
    assert correct(clause, found, strict=False) == expected["official"]
    assert 0 <= clause_scores(clause, found)[0] <= 1


def test_geneval_judges_colour_and_place_with_a_detector_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "detector.py"
    file.write_text(
        "from mmrl.data.geneval import Detection\n"
        "def find(picture):\n"
        "    half = picture.shape[1] // 2\n"
        "    sides = {'left': picture[:, :half], 'right': picture[:, half:]}\n"
        "    boxes = {'left': (0, 0, 10, 10), 'right': (40, 0, 50, 10)}\n"
        "    names = ('red', 'green', 'blue')\n"
        "    colour = lambda part: names[int(part.float().mean((0, 1)).argmax())]\n"
        "    return [Detection('square', boxes[s], 0.9, colour(p)) for s, p in sides.items()]\n"
    )
    video = torch.zeros(1, 3, 8, 8)
    video[:, 0, :, :4], video[:, 2, :, 4:] = 1.0, 1.0
    clauses = json.dumps([{"label": "square", "count": 2}])
    wanted = json.dumps([{"label": "square", "count": 2, "color": "red"}])
    reward = load_reward("geneval", detector=f"{file}:find")
    found = reward([sample(video, geneval=clauses), sample(video, geneval=wanted), sample(video)])
    assert found[:2].tolist() == [1.0, 0.5] and found[2].isnan()
    with pytest.raises(ConfigError, match=r"expected file\.py:name"):
        load_reward("geneval", detector=f"{file}:nothing")([sample(video, geneval=clauses)])


OFFICIAL = {
    "tag": "counting",
    "include": [{"class": "cup", "count": 2}],
    "exclude": [{"class": "cup", "count": 3}],
    "prompt": "a photo of two cups",
}


def found(*scores: float, label: str = "cup") -> list[Detection]:
    return [Detection(label, (0, 0, 1, 1), score) for score in scores]


def test_geneval_s_own_metadata_are_read_with_what_they_exclude() -> None:
    wanted = read_wanted(OFFICIAL)
    assert wanted == Wanted((Clause("cup", 2),), (Clause("cup", 3),), "counting")
    position = {"include": [{"class": "cup"}, {"class": "cat", "position": ["left of", 0]}]}
    assert read_wanted(position).include[1] == Clause("cat", 1, None, "left of", 0)
    assert read_wanted([{"label": "cup", "count": 2}]) == Wanted((Clause("cup", 2),))
    for count, expected in ((1, False), (2, True), (3, False)):
        cups = found(*[0.95] * count)
        for strict in (True, False):
            got = correct(wanted.include, cups, strict=strict, exclude=wanted.exclude)
            assert got == expected
    assert correct(wanted.include, found(*[0.95] * 3), strict=False)


@pytest.mark.parametrize(
    "clauses",
    [
        "cup",
        ["cup"],
        [{"count": 2}],
        [{"class": "cup", "count": 0}],
        [{"class": "cup", "size": "big"}],
        [{"class": "cup", "position": ["left of", 0]}],
        [{"class": "cup"}, {"class": "cat", "position": ["beside", 0]}],
    ],
)
def test_what_is_no_clause_is_refused(clauses: object) -> None:
    with pytest.raises(ValueError, match="clause"):
        read_wanted({"include": clauses})


@pytest.mark.parametrize(
    ("scores", "official", "strict", "soft"),
    [
        ((0.95, 0.95), 1.0, 1.0, 1.0),
        ((0.95, 0.95, 0.95), 0.0, 0.0, 0.5),
        ((0.95, 0.95, 0.5), 1.0, 0.0, 0.5),
        ((0.95, 0.5), 0.0, 1.0, 1.0),
    ],
)
def test_geneval_s_rules_on_its_own_counting_prompt(
    tmp_path: Path, scores: tuple[float, ...], official: float, strict: float, soft: float
) -> None:
    """Three sure cups are no two; an unsure third one is not counted by the official rule."""
    file = tmp_path / "cups.py"
    file.write_text(
        "from mmrl.data.geneval import Detection\n"
        f"def find(picture):\n    return [Detection('cup', (0, 0, 1, 1), s) for s in {scores}]\n"
    )
    asked = sample(torch.rand(1, 3, 8, 8), geneval=json.dumps(OFFICIAL))
    expected = {"official": official, "strict": strict, "soft": soft}
    for rule, value in expected.items():
        reward = load_reward("geneval", detector=f"{file}:find", rule=rule)
        assert reward([asked]).item() == value
