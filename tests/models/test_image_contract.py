"""Every image adapter against its real pipeline: same replay, image, LoRA and folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLQwenImage
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.models.pipeline import freeze_all_but_denoiser, load_video_model
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.matching import ForwardReplay, MatchingPolicy
from mmrl.policies.noise import GroupNoise
from mmrl.policies.recorded import recorded_pairs
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import IN_MEMORY, TextOptions, VideoEncoder, VideoModel, VideoSize
from mmrl.trust_region.weights import trainable
from mmrl.types import Prompt
from tests.models.tiny_images import FAMILIES, HEIGHT, SIZE, WIDTH, Family
from tests.models.tiny_parts import encoder_calls

PROMPT = Prompt("a red three moving left")
OTHER = Prompt("blue cat")
CALL = {"num_inference_steps": 4, "height": HEIGHT, "width": WIDTH}
GUIDED = [name for name, family in FAMILIES.items() if family.guided]
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def build(family: Family, texts: TextOptions = IN_MEMORY) -> VideoModel:
    """The adapter of a random pipeline, its denoiser's matrices large enough to hear a text."""
    pipeline = freeze_all_but_denoiser(family.build())
    with torch.no_grad():
        for weight in pipeline.transformer.parameters():
            weight.mul_(2.0 if weight.ndim == 2 else 1.0)
    return family.adapter(pipeline, SIZE, texts)


def policy(model: VideoModel, guidance: float = 1.0, kind: str = "sage") -> VideoPolicy:
    sampling = Sampling(kind, num_steps=4, eta=0.5, shift=None, guidance=guidance)
    return VideoPolicy(model, sampling, lambda _: StepPlan.all(4), rows=4)


def call(family: Family, model: VideoModel, output_type: str, guidance: float = 1.0) -> Tensor:
    """The pipeline's own image or latents from the seed's first noise."""
    noise = GroupNoise([7], 1, model.latent_shape).first(shared=False)
    guided = family.plain if guidance == 1 else family.guided(guidance)
    return model.pipeline(
        prompt=PROMPT.text,
        latents=family.to_call(noise),
        max_sequence_length=SIZE.max_sequence_length,
        output_type=output_type,
        **CALL,
        **guided,
    ).images


def image(model: VideoModel) -> Float[Tensor, "F 3 H W"]:
    return policy(model).sample([PROMPT], [7])[0].video


@each_family
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_replay_of_a_rollout_gives_the_same_bits(family: Family, guidance: float) -> None:
    ours = policy(build(family), guidance, "flow")
    batch = ours.rollout([PROMPT, OTHER], 2, [1, 2])
    replayed = ours.evaluate(batch)["denoise"]
    assert torch.equal(replayed.log_probs, batch.behavior["denoise"].log_probs)
    assert torch.equal(replayed.mean, batch.behavior["denoise"].mean)
    assert replayed.log_probs.requires_grad
    assert batch.samples[0].video.shape == (1, 3, HEIGHT, WIDTH)


@each_family
def test_deterministic_sampling_equals_the_pipelines_own_call(family: Family) -> None:
    model = build(family)
    torch.testing.assert_close(image(model), call(family, model, "pt"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_in_one_batch_equals_the_pipelines_two_passes(name: str) -> None:
    family = FAMILIES[name]
    model = build(family)
    ours = policy(model, 3.0).sample([PROMPT], [7])[0].video
    torch.testing.assert_close(ours, call(family, model, "pt", 3.0), rtol=0, atol=1e-4)
    assert (ours - image(model)).abs().max() > 1e-3


@each_family
def test_decoding_equals_the_pipelines_own(family: Family) -> None:
    model = build(family)
    latents = family.from_call(model.pipeline, call(family, model, "latent"))
    expected = call(family, model, "pt")
    torch.testing.assert_close(model.decode(latents)[0], expected, rtol=0, atol=1e-5)
    leaf = latents.clone().requires_grad_()
    model.decode(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0


@each_family
def test_encoding_undoes_the_scale_of_decoding(family: Family) -> None:
    """An image through the adapter and back is an image through the VAE alone and back."""
    model = build(family)
    videos = torch.rand(2, 1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    assert isinstance(model, VideoEncoder)
    latents, vae = model.encode_video(videos), model.pipeline.vae
    assert latents.shape[1:] == model.latent_shape and latents.dtype == torch.float32
    pixels = 2 * videos.transpose(1, 2) - 1
    with torch.no_grad():
        codes = vae.encode(
            pixels if isinstance(vae, AutoencoderKLQwenImage) else pixels[:, :, 0]
        ).latent_dist.mode()
        back = vae.decode(codes, return_dict=False)[0]
        expected = (back / 2 + 0.5).clamp(0, 1).reshape(videos.shape)
        torch.testing.assert_close(model.decode(latents), expected, rtol=0, atol=1e-5)


@each_family
def test_recorded_pairs_of_pictures_are_matched(family: Family, tmp_path: Path) -> None:
    """Two files a prompt become noised latents of their encodings, and the loss has a gradient."""
    levels = torch.arange(2 * HEIGHT * WIDTH * 3, dtype=torch.uint8).view(2, HEIGHT, WIDTH, 3)
    paths = tuple(tmp_path / f"{index}.png" for index in range(2))
    for path, level in zip(paths, levels, strict=True):
        Image.fromarray(level.numpy()).save(path)
    model = build(family)
    matching = MatchingPolicy(policy(model), recorded_pairs, num_levels=2, shared_noise=True)
    batch = matching.rollout([replace(PROMPT, videos=paths)], 2, [1])
    videos = levels.permute(0, 3, 1, 2)[:, None].float() / 255
    replay = batch.replay
    assert isinstance(replay, ForwardReplay)
    clean = replay.noised[:, 0].flatten(1) - replay.sigmas[:, :1] * replay.target[:, 0]
    torch.testing.assert_close(clean, model.encode_video(videos).flatten(1), rtol=0, atol=1e-4)
    matching.evaluate(batch)["denoise"].log_probs.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in matching.module.parameters())


@each_family
def test_a_prompt_moves_the_image_whatever_batch_it_is_in(family: Family) -> None:
    model = build(family)
    both = policy(model).sample([OTHER, PROMPT], [7, 7])
    torch.testing.assert_close(both[1].video, image(model), rtol=0, atol=1e-4)
    assert (both[0].video - both[1].video).abs().max() > 1e-3


@each_family
def test_a_saved_folder_and_a_saved_lora_make_the_same_image(
    family: Family, tmp_path: Path
) -> None:
    """LoRA starts as the identity; the base folder plus the LoRA folder is the trained model."""
    ours = build(family)
    plain = image(ours)
    ours.save_pretrained(tmp_path / "base")
    add_lora(ours.module, LoraConfig(rank=2, alpha=4, targets=family.targets), seed=0)
    assert torch.equal(image(ours), plain)
    learning = trainable(ours.module)
    assert learning
    assert all("lora_" in name for name in learning)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in learning.items():
            if "lora_B" in name:
                weight.normal_(generator=generator)
    changed = image(ours)
    assert (changed - plain).abs().max() > 1e-3
    ours.save_pretrained(tmp_path / "lora")
    fresh = load_video_model(str(tmp_path / "base"), SIZE, dtype=torch.float32)
    torch.testing.assert_close(image(fresh), plain, rtol=0, atol=1e-5)
    fresh.pipeline.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(image(fresh), changed, rtol=0, atol=1e-4)


@each_family
def test_embeddings_on_disk_are_those_of_the_encoders(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second model reads them without one forward pass of its text encoders."""
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path))
    models = [build(family, TextOptions(cache)) for cache in ("memory", "disk", "disk")]
    calls = [encoder_calls(model.pipeline) for model in models]
    texts = [PROMPT.text, OTHER.text]
    plain, *others = [model.encode(texts).tensors for model in models]
    assert calls[0] and calls[0] == calls[1] and calls[2] == []
    for found in others:
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[key], plain[key]) for key in plain)


@each_family
def test_sizes_that_a_model_cannot_make_are_refused(family: Family) -> None:
    pipeline = family.build()
    with pytest.raises(ConfigError, match=r"video\.num_frames: an image model makes 1 frame"):
        family.adapter(pipeline, VideoSize(5, HEIGHT, WIDTH, 8))
    with pytest.raises(ConfigError, match=r"video\.width: 25 is no multiple of .*; try 24"):
        family.adapter(pipeline, VideoSize(1, HEIGHT, 25, 8))


def test_embedded_guidance_reaches_the_network_and_starts_at_the_pipelines_default() -> None:
    for name in ("flux", "flux2"):
        model = build(FAMILIES[name])
        plain = image(model)
        model.embedded_guidance += 4.0
        assert (image(model) - plain).abs().max() > 1e-4, name
        expected = FAMILIES[name].plain | {"guidance_scale": model.embedded_guidance}
        told = Family(**{**FAMILIES[name].__dict__, "plain": expected})
        torch.testing.assert_close(image(model), call(told, model, "pt"), rtol=0, atol=1e-4)


def test_a_shift_of_the_config_replaces_the_pipelines_own() -> None:
    model = build(FAMILIES["flux"])
    levels = model.schedule(4, 3.0).levels
    torch.testing.assert_close(levels[1].item(), 3 * 0.75 / (1 + 2 * 0.75))
    assert not torch.allclose(levels, model.schedule(4, None).levels)
