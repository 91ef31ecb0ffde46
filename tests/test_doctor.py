"""What `mmrl show --memory` says, against real models: counts exactly, activations within 1.5."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.doctor import estimate
from mmrl.doctor.items import Estimate, activation_elements
from mmrl.doctor.video import decode_peak, denoiser_blocks
from mmrl.doctor.vlm import weight_bytes
from mmrl.models.meta import PeakBytes, meta_video_model, meta_vlm
from mmrl.models.pipeline import denoiser_tokens, freeze_all_but_denoiser, load_video_model
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.video_model import VideoModel, VideoSize
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.loop import load_config
from mmrl.vlm_recipe import VlmPipelineConfig, choose_trained
from tests.models.tiny_images import FAMILIES
from tests.models.tiny_pipelines import FAMILIES as VIDEO_FAMILIES
from tests.tiny import ROOT, video_config, vlm_config
from tests.tiny_vlm import FAMILIES as VLM_FAMILIES
from tests.tiny_vlm import Family, noise_prompts, random_policy

WAN = str(ROOT / "assets/tiny-wan")
FACTOR = 1.5
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LORA = {"rank": 4, "alpha": 4, "targets": list(ATTENTION)}
WAN_SIZE = VideoSize(17, 64, 64, 8)
IMAGE_SIZE = VideoSize(1, 64, 64, 48)
ROWS = 2


def wan() -> VideoModel:
    return load_video_model(WAN, WAN_SIZE, dtype=torch.float32)


def image_model(name: str) -> Callable[[], VideoModel]:
    family = FAMILIES[name]
    return lambda: family.adapter(freeze_all_but_denoiser(family.build()), IMAGE_SIZE)


MODELS = {
    "wan": wan,
    **{name: image_model(name) for name in ("sd3", "flux", "flux2", "qwen-image")},
}


def prepare(model: VideoModel, *, adapter: bool, checkpointing: bool) -> None:
    if adapter:
        add_lora(model.module, LoraConfig(rank=4, alpha=4, targets=ATTENTION), seed=0)
    if checkpointing:
        model.module.enable_gradient_checkpointing()


def one_pass(model: VideoModel) -> tuple[Callable[[], Tensor], Iterable[Tensor]]:
    """A forward pass of two rows, and the tensors that were there before it."""
    told = model.encode(["a red three"] * ROWS)
    x = torch.randn(ROWS, *model.latent_shape)
    known = [x, *model.module.parameters(), *told.tensors.values()]
    return lambda: model.predict(x, 500.0, told), known


def estimated(model: VideoModel, *, adapter: bool, checkpointing: bool) -> int:
    config = model.pipeline.transformer.config
    tokens = denoiser_tokens(model.latent_shape, config) + model.size.max_sequence_length
    elements = activation_elements(
        denoiser_blocks(config), adapter=adapter, checkpointing=checkpointing
    )
    return 4 * ROWS * tokens * elements


def saved_bytes(forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages that the graph of a forward pass keeps."""
    there = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in there:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    assert out.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_saved_activations_of_tiny_wan_are_what_the_formula_says(adapter: bool) -> None:
    model = wan()
    prepare(model, adapter=adapter, checkpointing=False)
    forward, known = one_pass(model)
    blocks = denoiser_blocks(model.pipeline.transformer.config)
    tokens = denoiser_tokens(model.latent_shape, model.pipeline.transformer.config)
    expected = 4 * ROWS * tokens * blocks.layers * blocks.saved(adapter=adapter)
    assert 1 / FACTOR < saved_bytes(forward, known) / expected < FACTOR


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_the_peak_of_forward_and_backward_is_what_the_formula_says(
    name: str, adapter: bool, checkpointing: bool
) -> None:
    """Gradients of weights are another item of the table."""
    model = MODELS[name]()
    prepare(model, adapter=adapter, checkpointing=checkpointing)
    forward, known = one_pass(model)
    with PeakBytes(known) as peak:
        forward().square().mean().backward()
    gradients = sum(4 * p.grad.numel() for p in model.module.parameters() if p.grad is not None)
    expected = estimated(model, adapter=adapter, checkpointing=checkpointing)
    assert 1 / FACTOR < (peak.peak - gradients) / expected < FACTOR


def parts_of(pipeline: object) -> dict[str, int]:
    return {
        name: sum(p.numel() for p in part.parameters())
        for name, part in pipeline.components.items()
        if isinstance(part, nn.Module)
    }


def test_parameters_are_counted_without_weights(tmp_path: Path) -> None:
    found = estimate(load_config({**video_config(tmp_path), "lora": LORA}))
    model = wan()
    expected = parts_of(model.pipeline)
    prepare(model, adapter=True, checkpointing=False)
    learning = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    assert found.parameters == {**expected, "trained": learning}


@pytest.mark.parametrize("name", [*FAMILIES, *VIDEO_FAMILIES])
def test_every_family_is_counted_from_its_config_files(name: str, tmp_path: Path) -> None:
    family = FAMILIES.get(name) or VIDEO_FAMILIES[name]
    wanted = IMAGE_SIZE if name in FAMILIES else VIDEO_FAMILIES[name].size
    pipeline = family.build()
    pipeline.save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    found = meta_video_model(str(tmp_path), wanted, dtype=torch.float32)
    assert parts_of(found.pipeline) == parts_of(pipeline)
    assert decode_peak(found, 2) >= 2 * wanted.num_frames * wanted.height * wanted.width * 3 * 4
    blocks = denoiser_blocks(found.pipeline.transformer.config)
    assert 0 < blocks.layers * blocks.width < sum(parts_of(pipeline).values())
    assert denoiser_tokens(found.latent_shape, found.pipeline.transformer.config) > 0


def test_the_decoders_peak_on_shapes_is_the_real_one() -> None:
    model = wan()
    latents = torch.zeros(ROWS, *model.latent_shape)
    with torch.no_grad(), PeakBytes([latents, *model.pipeline.vae.parameters()]) as peak:
        model.decode(latents)
    found = meta_video_model(WAN, WAN_SIZE, dtype=torch.float32)
    assert decode_peak(found, ROWS) == peak.peak


def bytes_of(found: Estimate, name: str) -> dict[str, int]:
    return dict(next(item.bytes for item in found.items if item.name == name))


def test_whole_anchors_lie_in_host_memory_and_adapters_on_the_device(tmp_path: Path) -> None:
    tree = video_config(tmp_path)
    whole, adapted = estimate(load_config(tree)), estimate(load_config({**tree, "lora": LORA}))
    learning = 4 * whole.parameters["trained"]
    assert bytes_of(whole, "anchors") == {"update": learning, "host": 2 * learning}
    assert bytes_of(whole, "AdamW moments")["update"] == 2 * learning
    learning = 4 * adapted.parameters["trained"]
    assert bytes_of(adapted, "anchors") == dict.fromkeys(
        ("rollout", "decode", "reward", "update"), 2 * learning
    )


def test_less_precision_and_checkpointing_take_less(tmp_path: Path) -> None:
    tree = video_config(tmp_path)
    plain = estimate(load_config(tree))
    half = estimate(load_config({**tree, "precision": "bfloat16"}))
    made_again = estimate(load_config({**tree, "gradient_checkpointing": True}))
    guided = estimate(load_config({**tree, "sampling": {**tree["sampling"], "guidance": 3.0}}))
    activations = [
        bytes_of(found, "denoiser's activations")["update"]
        for found in (plain, half, made_again, guided)
    ]
    assert activations[1] == activations[0] / 2
    assert activations[2] < activations[0] / 2
    assert activations[3] == activations[0] * 2
    assert 0 < bytes_of(half, "transformer")["update"] < bytes_of(plain, "transformer")["update"]


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
VLM_LORA = {"rank": 4, "alpha": 4, "targets": list(TARGETS)}
WAYS = {
    "full": {},
    "lora": {"lora": VLM_LORA},
    "frozen vision": {"freeze_vision": True},
    "checkpointing": {"gradient_checkpointing": True},
}


def vlm_tree(folder: Path, policy: VlmPolicy, changes: dict[str, object]) -> dict:
    """A config for the policy's model: two groups of eight answers of 96 tokens."""
    policy.model.save_pretrained(folder / "model")
    tree = vlm_config(folder / "run", folder) | {
        "model": str(folder / "model"),
        "group_size": 8,
        "max_new_tokens": 96,
    }
    return tree | {"train": tree["train"] | {"rows": 16}} | changes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_a_vlms_peak_is_what_the_formula_says(
    family: Family, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real prompts' tokens in the place of the assumed ones."""
    policy = random_policy(family)
    config = load_config(vlm_tree(tmp_path, policy, WAYS[way]))
    assert isinstance(config, VlmPipelineConfig)
    choose_trained(policy.model, config)
    policy = replace(policy, gradient_checkpointing=config.gradient_checkpointing)
    inputs = policy.model.inputs(noise_prompts(tmp_path)[:2], "{question}")
    images = int(inputs[0].types.sum())
    monkeypatch.setattr("mmrl.doctor.vlm.IMAGE_TOKENS", images)
    monkeypatch.setattr("mmrl.doctor.vlm.PROMPT_TOKENS", len(inputs[0].ids) - images)
    found = estimate(config)
    weights = list(policy.module.parameters())
    ids = torch.full((16, 96), 7)
    if not policy.model.vision_learns:
        inputs = policy.model.look(inputs)
    known = [part.features.tokens for part in inputs if part.features]
    with PeakBytes([ids, *weights, *known]) as peak:
        policy.answer_log_probs(inputs, ids, 8).sum().backward()
    gradients = sum(4 * p.grad.numel() for p in weights if p.grad is not None)
    names = ("keys and values", "activations, language", "activations, vision", "logits")
    more = ("mask of packed rows",) if config.gradient_checkpointing else ()
    expected = sum(bytes_of(found, name).get("update", 0) for name in (*names, *more))
    assert found.parameters["model"] + (found.parameters["trained"] if config.lora else 0) == sum(
        p.numel() for p in weights
    )
    assert 1 / FACTOR < (peak.peak - gradients) / expected < FACTOR


def test_a_tower_at_rest_keeps_only_its_features(tmp_path: Path) -> None:
    tree = vlm_tree(tmp_path, random_policy("qwen2_5_vl"), {})
    learns, rests = (estimate(load_config({**tree, "freeze_vision": v})) for v in (False, True))
    prompts, width = tree["train"]["prompts_per_step"], 64
    assert bytes_of(rests, "image features")["update"] == prompts * 256 * width * 4
    assert "update" not in bytes_of(rests, "activations, vision")
    assert "update" in bytes_of(learns, "activations, vision")
    assert rests.assumed == "prompts of 128 text and 256 image tokens"


def test_four_bits_count_the_text_models_linear_layers_alone(tmp_path: Path) -> None:
    policy = random_policy("qwen2_5_vl")
    policy.model.save_pretrained(tmp_path)
    model = meta_vlm(str(tmp_path), dtype=torch.bfloat16)
    linear = sum(
        layer.weight.numel()
        for layer in policy.module.model.language_model.modules()
        if isinstance(layer, nn.Linear)
    )
    whole = 2 * sum(p.numel() for p in policy.module.parameters())
    assert weight_bytes(model, four_bits=False) == whole
    saved = whole - weight_bytes(model, four_bits=True)
    assert saved / linear == pytest.approx(2 - 0.5159, abs=1e-3)


def test_a_hub_id_that_is_not_cached_is_refused_and_never_downloaded(tmp_path: Path) -> None:
    tree = {**video_config(tmp_path), "model": "nobody/has-this"}
    with pytest.raises(
        ConfigError, match=r"model: the config files .* hf download nobody/has-this"
    ):
        estimate(load_config(tree))


def test_show_prints_the_table() -> None:
    words = ["show", "--memory", "configs/sage_grpo/tiny.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "mmrl", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "955,552 parameters: transformer" in done.stdout
    assert "total" in done.stdout
