"""Scorers with real weights, where they were fetched; and what they do without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file

from mmrl.models.aesthetic import fold, load_head
from mmrl.models.text_adapter import fit_adapter, load_adapter, save_adapter
from mmrl.models.weights import WeightsUnavailable
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from tests.real_weights import needs

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())


def noise(seed: int, frames: int = 2, side: int = 64) -> torch.Tensor:
    """Smooth random colors, the same in every frame."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return image.expand(frames, -1, -1, -1)


def sign(text: str, size: int = 40) -> torch.Tensor:
    """White words on black, one frame."""
    image = Image.new("RGB", (420, 120))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((20, 30), text, font=font, fill="white")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(120, 420, 3).movedim(-1, 0)[None].float() / 255


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN if c["fn"] == "aesthetic_linear_chain"], ids=lambda c: c["id"]
)
def test_a_folded_head_equals_its_chain_of_layers(case: dict) -> None:
    layers = {
        f"layers.{2 * number}.{name}": torch.tensor(value, dtype=torch.float64)
        for number, layer in enumerate(case["in"]["layers"])
        for name, value in layer.items()
    }
    embedding = torch.tensor([case["in"]["emb"]], dtype=torch.float64)
    assert fold(layers)(embedding).item() == pytest.approx(case["out"]["score"], rel=1e-12)
    assert fold(layers)(0 * embedding).isnan()


def test_a_head_that_is_not_there_says_where_to_take_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"no file .*sa_0_4_vit_b_16_linear"):
        load_head(tmp_path / "head.pth")


def test_an_adapter_finds_a_linear_map_and_survives_its_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 9, generator=generator)
    texts = torch.randn(400, 6, generator=generator)
    images = texts @ truth + 0.3
    adapter = fit_adapter(texts, images, ridge=1e-3)
    torch.testing.assert_close(adapter.weight, truth, atol=1e-4, rtol=0)
    scores = (adapter.map_texts(texts) * adapter.map_images(images)).sum(-1)
    torch.testing.assert_close(scores, torch.ones(400), atol=1e-4, rtol=0)
    save_adapter(tmp_path / "a.safetensors", adapter, {"fitted_on": "numbers"})
    again, told = load_adapter(tmp_path / "a.safetensors")
    assert told == {"fitted_on": "numbers"}
    torch.testing.assert_close(again.weight, adapter.weight, atol=2e-3, rtol=0)


def test_a_frame_is_embedded_once_whoever_asks_and_again_after_the_process(
    tmp_path: Path, monkeypatch
) -> None:
    from mmrl.models.frame_cache import FrameCache

    monkeypatch.setenv("MMRL_CACHE", str(tmp_path))
    asked = []

    def embed(frames: torch.Tensor) -> torch.Tensor:
        asked.append(len(frames))
        return frames.float().mean((2, 3))

    frames = (noise(0, 1) * 255).round().to(torch.uint8)
    other = (noise(1, 1) * 255).round().to(torch.uint8)
    first = FrameCache(embed, "model", rows=2, disk=True)
    found = first(torch.cat([frames, other, frames]))
    assert asked == [2] and torch.equal(found[0], found[2])
    again = FrameCache(embed, "model", rows=2, disk=True)
    assert torch.equal(again(other), found[1:2]) and asked == [2]
    assert torch.equal(FrameCache(embed, "another model", rows=2, disk=True)(other), found[1:2])
    assert asked == [2, 1]


@pytest.mark.real
def test_the_multiplied_out_clip_tower_agrees_with_its_int8_file() -> None:
    needs("clip_b16_image")
    from mmrl.models.clip_b16 import clip_b16_image, load_tower
    from mmrl.models.onnx import load_onnx
    from mmrl.models.weights import CLIP_B16_IMAGE

    model = load_tower(CLIP_B16_IMAGE.path())
    assert sum(value.numel() for value in model.parameters()) == 86_192_640
    frames = (torch.cat([noise(0, 1, 224), noise(1, 1, 224)]) * 255).round().to(torch.uint8)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    rounded = load_onnx(CLIP_B16_IMAGE.path())((frames.float() / 255 - mean) / std)
    cosine = torch.cosine_similarity(clip_b16_image()(frames), rounded)
    assert (cosine > 0.9).all()


@pytest.mark.real
def test_frame_scores_know_a_still_video_and_abstain_below_two_frames() -> None:
    needs("clip_b16_image", "dinov2_s14")
    stripes = ((torch.arange(64) % 8 < 4).float()).expand(2, 3, 64, 64)
    still, cut = noise(0, 4), torch.cat([noise(0, 2), stripes])
    videos = [VideoSample(Prompt("x"), video) for video in (still, cut, still[:1])]
    for name in ("clip_consistency", "dino_consistency"):
        found = load_reward(name, num_frames=4)(videos)
        assert found[0] == pytest.approx(1, abs=1e-5)
        assert found[1] < 0.95
        assert found[2].isnan()


@pytest.mark.real
def test_an_aesthetic_head_reads_the_unit_embedding_of_the_packaged_tower(tmp_path: Path) -> None:
    needs("clip_b16_image")
    from mmrl.models.clip_b16 import clip_b16_image

    weight = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    head = tmp_path / "head.safetensors"
    save_file({"weight": weight, "bias": torch.tensor([5.0])}, head)
    sample = VideoSample(Prompt("x"), noise(0, 1))
    unit = clip_b16_image().video(sample.video, 1)
    found = load_reward("aesthetic_laion", head=head)([sample]).item()
    assert found == pytest.approx((unit @ weight[0]).item() + 5, abs=1e-4)


@pytest.mark.real
def test_ocr_reads_rendered_words_and_scores_what_is_missing() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    words = "NASA 2049 Hello"
    asked = [f'a sign "{words}"', 'a sign "NASA"', 'a sign "zebra"', "a sign", 'a sign ""']
    scorer = load_reward("ocr")
    found = scorer([VideoSample(Prompt(text), sign(words)) for text in asked])
    assert found[:2].tolist() == [1, 1]
    assert found[2] < 0.5
    assert found[3:].isnan().all()
    assert scorer([VideoSample(Prompt('"zebra"'), torch.zeros(1, 3, 64, 64))]).item() == 0


@pytest.mark.real
def test_raft_sees_no_motion_in_a_still_pair_and_eight_pixels_in_a_roll() -> None:
    needs("vbench_motion")
    from mmrl.models.raft import raft

    image = sign("RAFT 8 px", 48)[0, :, :, :160]
    textured = (image + noise(3, 1, 160)[0, :, :120]).clamp(0, 1)
    assert raft()(textured, textured).norm(dim=0).mean() < 0.1
    flow = raft()(textured, textured.roll(8, dims=-1))
    assert flow.shape == (2, 120, 160)
    assert flow[0].median() == pytest.approx(8, abs=0.5)
    assert flow[1].median() == pytest.approx(0, abs=0.5)


@pytest.mark.real
def test_colors_are_no_nudity() -> None:
    needs("nudenet")
    found = load_reward("nsfw_penalty")([VideoSample(Prompt("x"), noise(0, 1))])
    assert found.item() == 0
