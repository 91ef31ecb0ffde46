"""ImageReward on a tiny BLIP: the released names, the released normalization."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models.blip_reward import grading_layers, load_blip_reward
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from rewards.image_reward import normalized
from tests.models.elsewhere import ELSEWHERE, Watched

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "three"]
BACK = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.post_layernorm\.", "visual_encoder.norm."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"visual_encoder.blocks.\1."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
    (r"\.self_attn\.projection\.", ".attn.proj."),
)


def released(name: str) -> str:
    """A weight's name in the authors' checkpoint."""
    for pattern, replacement in BACK:
        name = re.sub(pattern, replacement, name)
    return f"blip.{name}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A folder with config, tokenizer and a checkpoint of random weights, and its model."""
    from transformers import BertTokenizerFast, BlipConfig, BlipForImageTextRetrieval

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    shape: dict[str, float] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "initializer_range": 0.2}  # BLIP's own is 1e-10
    text = {**shape, "encoder_hidden_size": 32, "vocab_size": len(WORDS), "pad_token_id": 0}
    config = BlipConfig(
        text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 16}
    )
    config.save_pretrained(folder)
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(config).eval()
    weights = {
        released(name): value.clone()
        for name, value in model.state_dict().items()
        if name.startswith(("vision_model.", "text_encoder."))
    }
    layers = grading_layers(32)
    weights |= {f"mlp.layers.{name}": value for name, value in layers.state_dict().items()}
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(weights, folder / "ImageReward.pt")
    return folder, model


def test_the_released_names_lead_to_the_same_model(tiny: tuple[Path, torch.nn.Module]) -> None:
    folder, model = tiny
    found = load_blip_reward(str(folder), folder / "ImageReward.pt")
    for mine, theirs in ((found.vision, model.vision_model), (found.text, model.text_encoder)):
        expected = theirs.state_dict()
        assert all(value.equal(expected[name]) for name, value in mine.state_dict().items())


def test_words_and_picture_both_count_and_a_batch_changes_nothing(
    tiny: tuple[Path, torch.nn.Module],
) -> None:
    folder, _ = tiny
    reward = load_reward("image_reward", model=str(folder), checkpoint=folder / "ImageReward.pt")
    pictures = torch.rand(2, 1, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    samples = [
        VideoSample(Prompt(text), picture)
        for text in ("a red three", "a blue three")
        for picture in pictures
    ]
    found = reward(samples)
    assert len({round(value, 6) for value in found.tolist()}) == 4
    alone = torch.cat([reward([sample]) for sample in samples])
    assert torch.allclose(found, alone, atol=1e-5)
    broken = VideoSample(Prompt("a"), torch.full((1, 3, 32, 32), torch.nan))
    assert reward([broken]).isnan().all()


def test_blip_scores_in_bfloat16_and_all_that_meets_it_is_on_its_device(
    tiny: tuple[Path, torch.nn.Module],
) -> None:
    folder, _ = tiny
    files = {"model": str(folder), "checkpoint": folder / "ImageReward.pt"}
    sample = VideoSample(Prompt("a red three"), torch.rand(2, 3, 40, 32))
    whole, half = (
        load_reward("image_reward", **files, device="cpu", precision=precision)([sample])
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32 and not half.equal(whole)
    torch.testing.assert_close(half, whole, atol=0.05, rtol=0.05)
    there = load_blip_reward(files["model"], files["checkpoint"], ELSEWHERE)
    with Watched():
        found = there.score(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ["a red three", "a"])
    assert found.device.type == "cpu"


def test_the_normalization_is_the_released_one() -> None:
    for case in (case for case in GOLDEN if case["fn"] == "imagereward_norm"):
        found = normalized(torch.tensor([case["in"]["raw"]], dtype=torch.float64))
        assert found.item() == pytest.approx(case["out"]["reward"], rel=1e-12)


def test_a_checkpoint_of_another_model_is_named(
    tiny: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    folder, _ = tiny
    torch.save({"mlp.layers.0.weight": torch.zeros(2, 2)}, tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="does not fit"):
        load_blip_reward(str(folder), tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="no such file"):
        load_blip_reward(str(folder), tmp_path / "none.pt")
