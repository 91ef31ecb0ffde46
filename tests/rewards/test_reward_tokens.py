"""VideoAlign and HPSv3 on a tiny Qwen2-VL: published rules, checkpoints, what cannot leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmrl.config import ConfigError
from mmrl.data.coordinates import ImageSize, smart_resize
from mmrl.models.reward_checkpoint import Checkpoint, modern
from mmrl.models.reward_tokens import at_tokens, frame_indices, harmless, resized
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from pipelines.tiny.qwen2_5_vl import build_processor
from pipelines.tiny.qwen_models import SPECIAL, Size, build_model
from rewards.video_align import TOKENS, normalized

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())
QUESTION = (
    "Rate the picture. <|VQ_reward|> Rate the motion. <|MQ_reward|> "
    "Rate how well it fits: {caption} <|TA_reward|>"
)
RANK, ALPHA = 2, 4


def cases(function: str) -> list[dict]:
    return [case for case in GOLDEN if case["fn"] == function]


@pytest.mark.parametrize("case", cases("videoalign_frames"), ids=lambda c: c["id"])
def test_the_frames_are_videoalign_s(case: dict) -> None:
    given = case["in"]
    found = frame_indices(given["total_frames"], given["video_fps"], sample_fps=given["sample_fps"])
    assert found == case["out"]["indices"]


def test_a_video_of_one_frame_has_no_motion_to_grade() -> None:
    with pytest.raises(ValueError, match="too short"):
        frame_indices(1, 8.0, sample_fps=2.0)


@pytest.mark.parametrize("case", cases("videoalign_resize"), ids=lambda c: c["id"])
def test_the_size_is_videoalign_s(case: dict) -> None:
    given = case["in"]
    size = ImageSize(width=given["width"], height=given["height"])
    bounds = {"min_pixels": given["min_pixels"], "max_pixels": given["max_pixels"]}
    found = smart_resize(size, factor=given["factor"], **bounds)
    assert [found.height, found.width] == case["out"]["hw"]
    video = resized(torch.rand(1, 3, given["height"], given["width"]), **bounds)
    assert list(video.shape[-2:]) == case["out"]["hw"]


@pytest.mark.parametrize("case", cases("videoalign_norm"), ids=lambda c: c["id"])
def test_scores_are_normalized_as_the_checkpoint_says(case: dict) -> None:
    statistics = {k: (v["mean"], v["std"]) for k, v in case["in"]["stats"].items()}
    found = normalized(case["in"]["raw"], statistics)
    for name, value in found.items():
        assert value == pytest.approx(case["out"][name], rel=1e-12, abs=1e-12)
    assert sum(found.values()) == pytest.approx(case["out"]["Overall"], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", cases("videoalign_head"), ids=lambda c: c["id"])
def test_the_head_is_read_at_its_tokens(case: dict) -> None:
    given = case["in"]
    ids, logits = torch.tensor([given["input_ids"]]), torch.tensor([given["token_logits"]])
    found = at_tokens(ids, logits, given["special_ids"])[0, :, 0]
    assert found.tolist() == pytest.approx(case["out"]["pooled"])


def test_a_cut_prompt_and_a_smuggled_token_are_refused() -> None:
    logits = torch.zeros(1, 3, 1)
    for ids in ([[1, 5, 0]], [[1, 2, 2]]):
        with pytest.raises(ValueError, match="exactly 2 reward tokens"):
            at_tokens(torch.tensor(ids), logits, [1, 2])
    assert harmless("a <|TA_reward|>cat") == "a cat"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2-VL folder."""
    torch.manual_seed(0)
    processor = build_processor([QUESTION])
    ids = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    model = build_model("qwen2_vl", ids, 600, Size(width=64, layers=2, vision=1))
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "question.txt").write_text(QUESTION)
    return folder


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a PEFT run of 2024 saved them."""
    found = {}
    for name, value in weights.items():
        old = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        found[f"base_model.model.{old}"] = value.clone()
    return found


def write_checkpoints(base: Path, root: Path) -> None:
    """checkpoint-1 with adapters apart, checkpoint-2 with everything in one file."""
    from transformers import Qwen2VLForConditionalGeneration

    torch.manual_seed(1)
    model = Qwen2VLForConditionalGeneration.from_pretrained(base)
    size = len(build_processor([QUESTION]).tokenizer) + len(TOKENS)
    model.resize_token_embeddings(size, mean_resizing=False)
    weights = old_names(model.state_dict())
    head = {"base_model.model.rm_head.weight": torch.randn(3, 64)}
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    down, up = torch.randn(RANK, 64) / 8, torch.randn(64, RANK) / 8
    adapters = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    apart, whole = root / "checkpoint-1", root / "checkpoint-2"
    for folder in (apart, whole):
        folder.mkdir(parents=True)
    save_file(adapters, apart / "adapter_model.safetensors")
    rest = {k: v for k, v in weights.items() if "embed_tokens" in k or "lm_head" in k}
    torch.save({**rest, **head}, apart / "non_lora_state_dict.pth")
    full = {
        name.replace(".q_proj.weight", ".q_proj.base_layer.weight")
        if name.startswith(layer)
        else name: value
        for name, value in weights.items()
    }
    named = {k.replace(".weight", ".default.weight"): v for k, v in adapters.items()}
    torch.save({**full, **named, **head}, whole / "model.pth")
    config = {"peft_lora_config": {"lora_r": RANK, "lora_alpha": ALPHA}}
    (root / "model_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def root(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video_align")
    write_checkpoints(base, folder)
    return folder


def reward(base: Path, root: Path, **fields: Any):
    places = {"model": str(base), "checkpoint": root, "question": base / "question.txt"}
    fields = {"precision": "float32", "max_pixels": 100_352, **fields}
    return load_reward("video_align", **places, **fields)


def sample(text: str, frames: int = 6) -> VideoSample:
    video = torch.rand(frames, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return VideoSample(Prompt(text), video, fps=4.0)


def test_both_layouts_of_a_checkpoint_give_the_same_scores(base: Path, root: Path) -> None:
    found = [reward(base, root, step=step)([sample("a cat")]).item() for step in (1, 2)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    newest = reward(base, root)([sample("a cat")]).item()
    assert newest == found[1]


def test_the_backbone_in_bfloat16_keeps_its_head_and_its_rotary_frequencies_whole(
    base: Path, root: Path
) -> None:
    whole, half = (reward(base, root, precision=p) for p in ("float32", "bfloat16"))
    found = half([sample("a cat")]).item()
    assert found == pytest.approx(whole([sample("a cat")]).item(), abs=0.1)
    weights = {p.dtype for p in half.scorer.module.parameters()}
    assert weights == {torch.bfloat16}
    kept = [*half.scorer.head.parameters(), *half.scorer.module.buffers()]
    assert {x.dtype for x in kept if x.is_floating_point()} == {torch.float32}


def test_the_caption_reaches_only_the_score_of_its_fit(base: Path, root: Path) -> None:
    scores = {}
    for dimension in ("VQ", "MQ", "TA", "overall"):
        score = reward(base, root, dimension=dimension)
        score.__dict__["scorer"] = scores.setdefault("scorer", score.scorer)
        scores[dimension] = score([sample("a cat"), sample("two dogs in the snow")]).tolist()
    for dimension in ("VQ", "MQ"):
        assert scores[dimension][0] == pytest.approx(scores[dimension][1], abs=1e-5)
    assert abs(scores["TA"][0] - scores["TA"][1]) > 1e-4
    total = sum(scores[dimension][0] for dimension in ("VQ", "MQ", "TA"))
    assert scores["overall"][0] == pytest.approx(total)


def test_one_frame_abstains_and_a_reward_token_in_a_caption_is_dropped(
    base: Path, root: Path
) -> None:
    score = reward(base, root)
    found = score([sample("a cat", frames=1), sample("a <|VQ_reward|>cat"), sample("a cat")])
    assert found[0].isnan() and found[1] == found[2]


def test_hpsv3_reads_mu_through_its_layers(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    layers = {"0": (16, 64), "3": (8, 16), "5": (2, 8)}
    head = {f"rm_head.{k}.weight": torch.randn(*shape) for k, shape in layers.items()}
    head |= {f"rm_head.{k}.bias": torch.randn(shape[0]) for k, shape in layers.items()}
    save_file(head, tmp_path / "HPSv3.safetensors")
    (tmp_path / "question.txt").write_text("Rate this for {caption}: <|Reward|>")
    score = load_reward(
        "hpsv3",
        model=str(base),
        checkpoint=tmp_path / "HPSv3.safetensors",
        question=tmp_path / "question.txt",
        precision="float32",
    )
    found = score([sample("a cat", 1), sample("a dog", 1)])
    assert found.isfinite().all() and found[0] != found[1]
    kinds = [type(layer).__name__ for layer in score.scorer.head]
    assert kinds == ["Linear", "ReLU", "Identity", "Linear", "ReLU", "Linear"]


def test_what_does_not_fit_is_named(base: Path, root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rm_head"):
        Checkpoint({}).head()
    with pytest.raises(ConfigError, match="no lora_r"):
        Checkpoint({"x.lora_A.weight": torch.zeros(1, 1)}).merged({})
    with pytest.raises(ConfigError, match=r"checkpoint-7"):
        reward(base, root, step=7)([sample("a cat")])
    (tmp_path / "q.txt").write_text("{caption} <|VQ_reward|>")
    with pytest.raises(ConfigError, match=r"needs <\|MQ_reward\|> once"):
        load_reward("video_align", model="x", checkpoint=root, question=tmp_path / "q.txt")
    assert modern("base_model.model.visual.blocks.0.norm1.weight").startswith("model.visual.")
