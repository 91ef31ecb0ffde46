"""The latent cold start: spelled answers, the two losses, and a model that learns to imagine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmrl.config import ConfigError, UserError
from mmrl.data.prompts import DataError
from mmrl.models.compressor import Compressor, TowerPatches, VisionPatches
from mmrl.models.latent_tokens import add_span_tokens
from mmrl.ops.latent_steps import SpanTokens, log_go_on
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.train.latent_sft import (
    LatentExample,
    LatentSftConfig,
    expand,
    latent_loss,
    latent_losses,
    latent_sft,
    spell,
)
from mmrl.train.sft import SftConfig
from mmrl.types import Prompt
from tests.tiny_vlm import random_model

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/depo.json").read_text())
QUERIES = 2
CONFIG = LatentSftConfig(SftConfig(steps=60, batch=8, lr=3e-3, seed=0))


def fresh_policy() -> LatentVlmPolicy:
    model = random_model("qwen2_5_vl", std=0.02)
    add_span_tokens(model)
    return LatentVlmPolicy(
        model, max_new_tokens=24, rows=8, kappa=1.0, max_latents=QUERIES, latent_sampling="mode"
    )


@pytest.fixture(scope="module")
def policy() -> LatentVlmPolicy:
    return fresh_policy()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[LatentExample]:
    """Bright pictures are A and dark ones B; the helper picture is the bright or dark half."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for level in range(0, 256, 32):
        paths = [folder / f"{name}_{level}.png" for name in ("whole", "half")]
        for path, size in zip(paths, ((112, 112), (112, 56)), strict=True):
            Image.new("RGB", size, (level,) * 3).save(path)
        answer = ("see", paths[1], "A" if level > 127 else "B")
        made.append(LatentExample(Prompt("what is it?", (paths[0],)), answer))
    return made


def build(policy: LatentVlmPolicy) -> tuple[TowerPatches, Compressor]:
    encoder = TowerPatches(policy.model)
    torch.manual_seed(0)
    return encoder, Compressor(encoder.width, encoder.width, queries=QUERIES, heads=4)


def test_spans_and_labels_are_those_of_the_reference() -> None:
    """The answer's part of both rows: text stays, each picture becomes start, latents, end."""
    case = GOLDEN["sft_labels"]
    tokens = SpanTokens(case["start_id"], case["canvas_id"], case["end_id"])
    for row, pieces in enumerate(([[3], None, [4], None, [8, 9]], [[3], None, [4, 9]])):
        whole, length = case["new_input_ids"][row], sum(case["new_attention_mask"][row])
        answer = slice(whole.index(case["assistant_pattern"][1]) + 1, length)
        ids, latent = expand(pieces, tokens, case["n_tokens"])
        assert ids.tolist() == whole[answer]
        assert latent.tolist() == [bool(x) for x in case["canvas_mask"][row][answer]]
        assert torch.where(latent, -100, ids).tolist() == case["labels"][row][answer]


@pytest.mark.parametrize("case", GOLDEN["sft_loss"], ids=lambda c: c["kind"])
def test_the_regression_and_its_gradients_to_both_sides_equal_the_reference(case: dict) -> None:
    hidden, embeds = (
        torch.tensor(case[name][0], dtype=torch.float64, requires_grad=True)
        for name in ("hidden", "inputs_embeds")
    )
    places = torch.tensor(case["canvas_mask"][0]).nonzero()[:, 0]
    kind = "mse" if case["kind"] == "mse" else "cosine"
    loss = latent_loss(hidden[places - 1], embeds[places], kind)
    assert loss.item() == pytest.approx(case["canvas_loss"], abs=1e-6)
    assert case["ce"] + case["lam"] * loss.item() == pytest.approx(case["loss"], abs=1e-6)
    for found, name in zip(
        torch.autograd.grad(case["lam"] * loss, (hidden, embeds)),
        ("grad_hidden", "grad_embeds"),
        strict=True,
    ):
        expected = torch.tensor(case[name][0], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_both_losses_reach_the_compressor_and_the_model(policy, examples) -> None:
    encoder, compressor = build(policy)
    spelled = [spell(policy, one, QUERIES) for one in examples[:3]]
    losses = latent_losses(
        policy, encoder, compressor, [one.prompt for one in examples[:3]], spelled, CONFIG
    )
    for loss in losses:
        policy.module.zero_grad(set_to_none=True)
        compressor.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        assert compressor.queries.grad is not None and compressor.queries.grad.abs().max() > 0
        text = [p.grad for n, p in policy.module.named_parameters() if "language_model" in n]
        assert max(g.abs().max().item() for g in text if g is not None) > 0
    assert all(not p.requires_grad for p in encoder.model.module.parameters())


def test_a_cold_start_learns_to_write_a_span_and_to_imagine_the_helper_picture(examples) -> None:
    fresh = fresh_policy()
    encoder, compressor = build(fresh)
    losses = latent_sft(fresh, encoder, compressor, examples, CONFIG)
    assert losses[-1].tokens < 0.25 * losses[0].tokens
    assert losses[-1].latents < 0.5 * max(loss.latents for loss in losses)
    samples = fresh.sample([one.prompt for one in examples], [0] * len(examples))
    spans = [s.text.removeprefix("see").removesuffix(s.text[-1]) for s in samples]
    assert set(spans) <= {
        "<|canvas_start|><|canvas|><|canvas_end|>",
        "<|canvas_start|><|canvas|><|canvas|><|canvas_end|>",
    }
    right = sum(s.text[-1] == one.answer[-1] for s, one in zip(samples, examples, strict=True))
    assert right >= 6


def test_one_step_is_a_length_too(examples) -> None:
    fresh = fresh_policy()
    once = replace(CONFIG, sft=replace(CONFIG.sft, steps=1))
    [losses] = latent_sft(fresh, *build(fresh), examples[:2], once)
    assert losses.tokens > 0 and losses.latents > 0


def test_the_compressor_normalizes_queries_and_not_patches() -> None:
    """Scaling the patches changes what it makes; their number does not matter to its shape."""
    torch.manual_seed(0)
    compressor = Compressor(16, 24, queries=3, heads=4)
    patches = torch.randn(2, 9, 16)
    made = compressor(patches)
    assert made.shape == (2, 3, 24)
    assert (compressor(2 * patches) - made).abs().max() > 1e-4
    assert compressor(patches[:, :5]).shape == (2, 3, 24)
    turned = compressor(patches[:, torch.randperm(9)])
    torch.testing.assert_close(turned, made, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="heads: 5 heads do not divide a width of 16"):
        Compressor(16, 24, heads=5)


def test_siglip_patches_come_from_its_vision_half(tmp_path: Path, examples) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": 32, "projection_size": 16},
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
    )
    SiglipModel(config).save_pretrained(tmp_path)
    size = {"height": 28, "width": 28}
    SiglipImageProcessor(size=size).save_pretrained(tmp_path)
    encoder = VisionPatches.from_pretrained(str(tmp_path))
    pictures = [one.prompt.images[0] for one in examples[:2]]
    found = encoder(pictures)
    assert found.shape == (2, 4, encoder.width) == (2, 4, 16)
    assert not found.requires_grad
    assert not torch.equal(found[0], found[1])


def test_mistakes_are_named(policy, examples) -> None:
    encoder, _ = build(policy)
    one = examples[0]
    with pytest.raises(UserError, match="the answer 'see' has no helper picture"):
        spell(policy, replace(one, answer=("see", "A")), QUERIES)
    with pytest.raises(DataError, match=r"helper picture: image .*gone.png does not exist"):
        spell(policy, replace(one, answer=("see", Path("gone.png"))), QUERIES)
    with pytest.raises(DataError, match=r"answer: the text .* holds <\|canvas_end\|>"):
        spell(policy, replace(one, answer=("a<|canvas_end|>", one.answer[1])), QUERIES)
    with pytest.raises(UserError, match=r"positions with its latents and its end, .* at most 24"):
        spell(policy, replace(one, answer=(one.answer[1],) * 6), QUERIES)
    big = Compressor(encoder.width, encoder.width, queries=3, heads=4)
    with pytest.raises(UserError, match="makes 3 latents a picture, the policy thinks at most 2"):
        latent_sft(policy, encoder, big, examples, CONFIG)


def test_detached_targets_feel_the_cross_entropy_alone(policy, examples) -> None:
    encoder, compressor = build(policy)
    spelled, prompts = [spell(policy, examples[0], QUERIES)], [examples[0].prompt]
    config = replace(CONFIG, detach_targets=True)
    slopes = []
    for chosen in (CONFIG, config):
        tokens, latents = latent_losses(policy, encoder, compressor, prompts, spelled, chosen)
        direct = torch.autograd.grad(latents, compressor.out.bias, retain_graph=True)[0]
        slopes.append((torch.autograd.grad(tokens, compressor.out.bias)[0], direct))
    torch.testing.assert_close(slopes[0][0], slopes[1][0])
    assert (slopes[0][1] - slopes[1][1]).abs().max() > 1e-6


def test_going_on_with_a_span_is_learned_where_it_is_asked_for(policy, examples) -> None:
    """One more decision an answer of two latents; the first latent is none."""
    encoder, compressor = build(policy)
    spelled, prompts = [spell(policy, examples[0], QUERIES)], [examples[0].prompt]
    means = []
    with torch.no_grad():
        for chosen in (CONFIG, replace(CONFIG, trained_stops=True)):
            tokens, _ = latent_losses(policy, encoder, compressor, prompts, spelled, chosen)
            means.append(tokens.item())
        ids, latent = spelled[0].ids[None], spelled[0].latent[None]
        targets = compressor(encoder(spelled[0].pictures)).flatten(0, 1)
        hidden = policy.hidden_states(policy.inputs(prompts), ids, latent, targets, 1)
        ends = policy.log_probs(hidden, torch.full_like(ids, policy.tokens.end))
    second = latent[0].nonzero()[1, 0]
    count = int((~latent).sum())
    expected = (means[0] * count - log_go_on(ends[0, second]).item()) / (count + 1)
    assert means[1] == pytest.approx(expected, rel=1e-5)
