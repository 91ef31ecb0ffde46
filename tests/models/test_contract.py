"""What every video adapter owes: the pipeline's own videos, exact replay, LoRA, its own folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.models.pipeline import at_size, load_video_model
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.noise import GroupNoise
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import TextOptions, VideoEncoder
from mmrl.trust_region.weights import trainable
from mmrl.types import Prompt
from tests.models.tiny_parts import encoder_calls
from tests.models.tiny_pipelines import FAMILIES, STEPS, Family, first_frame, own_call, save

DRAW = Sampling("bridge", num_steps=2, eta=1.0, shift=None)
PROMPT, OTHER = 'a red "three" moving left', "a blue three moving up"
NAMES = sorted(FAMILIES)
Folders = Callable[[str], Path]
WITH_ENCODER = [name for name in NAMES if not name.startswith(("cogvideox", "ltx2"))]
"""CogVideoX predicts no velocity to match, and LTX-2's states hold sound."""
WITH_GUIDANCE = [(name, guidance) for name in NAMES for guidance in FAMILIES[name].guidances]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return cache(lambda name: save(FAMILIES[name], tmp_path_factory.mktemp(name)))


def asked(folder: Path, *texts: str) -> list[Prompt]:
    return [Prompt(text, images=(first_frame(folder),)) for text in texts]


def policy(
    folder: Path, family: Family, guidance: float = 1.0, dtype: torch.dtype = torch.float32
) -> VideoPolicy:
    kind, eta = ("sage", 0.5) if family.flow else ("bridge", 1.0)
    return VideoPolicy(
        load_video_model(str(folder), family.size, dtype=dtype),
        Sampling(kind, num_steps=STEPS, eta=eta, shift=None, guidance=guidance),
        lambda _: StepPlan.all(STEPS),
        rows=4,
    )


@cache
def first_noise(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """What our policy starts from with seed 7."""
    return GroupNoise([7], 1, shape).first(shared=False)


@pytest.mark.parametrize("name", NAMES)
def test_replay_repeats_the_sampler_bit_for_bit(name: str, folders: Folders) -> None:
    ours = policy(folders(name), FAMILIES[name], guidance=2.0)
    rollout = ours.rollout(asked(folders(name), PROMPT, OTHER), 2, [1, 2])
    replayed, sampled = ours.evaluate(rollout)["denoise"], rollout.behavior["denoise"]
    assert torch.equal(replayed.log_probs, sampled.log_probs)
    assert torch.equal(replayed.mean, sampled.mean)
    assert torch.isfinite(sampled.log_probs).all()
    replayed.log_probs.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in ours.module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_half_precision_network_takes_float32_steps_and_replays_them(
    name: str, folders: Folders
) -> None:
    ours = policy(folders(name), FAMILIES[name], guidance=2.0, dtype=torch.bfloat16)
    rollout = ours.rollout(asked(folders(name), PROMPT), 2, [1])
    replayed, sampled = ours.evaluate(rollout)["denoise"], rollout.behavior["denoise"]
    assert sampled.mean is not None and sampled.mean.dtype == torch.float32
    assert torch.equal(replayed.log_probs, sampled.log_probs)
    assert torch.isfinite(sampled.log_probs).all()
    assert rollout.samples[0].video.dtype == torch.float32


@pytest.mark.parametrize(("name", "guidance"), WITH_GUIDANCE)
def test_deterministic_sampling_equals_the_pipelines_own_call(
    name: str, guidance: float, folders: Folders
) -> None:
    """Same first noise and noise levels, CFG as one batch against CFG as two, same decoder."""
    family = FAMILIES[name]
    ours = policy(folders(name), family, guidance)
    noise = first_noise(ours.model.latent_shape)
    schedule, plan = ours.schedule(STEPS), StepPlan.deterministic(STEPS)
    with torch.no_grad():
        [(_, path)] = ours.paths(asked(folders(name), PROMPT), 1, [7], schedule, plan)
    video = ours.sample(asked(folders(name), PROMPT), [7])[0].video
    latents, frames = (
        own_call(family, folders(name), PROMPT, noise, guidance=guidance, output=output)
        for output in ("latent", "pt")
    )
    assert (latents - noise).abs().mean() > 1e-2
    torch.testing.assert_close(path.states[-1], latents, rtol=0, atol=1e-4)
    assert frames.std() > 1e-2
    torch.testing.assert_close(video, frames, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_changes_the_video(name: str, folders: Folders) -> None:
    ours = policy(folders(name), FAMILIES[name])
    one, other = ours.sample(asked(folders(name), PROMPT, OTHER), [7, 7])
    assert not torch.equal(one.video, other.video)


@pytest.mark.parametrize("name", NAMES)
def test_decoding_equals_the_pipelines_own_and_has_a_gradient(name: str, folders: Folders) -> None:
    family = FAMILIES[name]
    ours = policy(folders(name), family)
    noise = first_noise(ours.model.latent_shape)
    latents, frames = (
        own_call(family, folders(name), PROMPT, noise, guidance=1.0, output=output)
        for output in ("latent", "pt")
    )
    latents = latents.clone().requires_grad_()
    video = ours.model.decode(latents)
    torch.testing.assert_close(video[0].detach(), frames, rtol=0, atol=1e-5)
    video.sum().backward()
    assert latents.grad is not None and latents.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_trained_at_one_size_samples_at_another(name: str, folders: Folders) -> None:
    """Evaluation shares the weights, sees their changes, and leaves the size of training alone."""
    family = FAMILIES[name]
    ours, prompts = policy(folders(name), family), asked(folders(name), PROMPT)
    larger = replace(family.size, height=2 * family.size.height)
    ours.eval_model = at_size(ours.model, larger)
    fresh = policy(folders(name), replace(family, size=larger))
    with torch.no_grad():
        for module in (ours.module, fresh.module):
            for p in trainable(module).values():
                p.add_(0.01)
    shown = ours.sample(prompts, [7])[0].video
    assert shown.shape == (larger.num_frames, 3, larger.height, larger.width)
    assert torch.equal(shown, fresh.sample(prompts, [7])[0].video)
    rollout = ours.rollout(prompts, 2, [1])
    assert rollout.samples[0].video.shape[2] == family.size.height
    replayed, sampled = ours.evaluate(rollout)["denoise"], rollout.behavior["denoise"]
    assert torch.equal(replayed.log_probs, sampled.log_probs)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_the_model_cannot_make_is_refused_with_the_nearest_one(
    name: str, folders: Folders
) -> None:
    """One frame, row or column more or less: a neighbour that it names is one that it makes."""
    family = FAMILIES[name]
    model = policy(folders(name), family).model
    tried = {"num_frames": (-1, 1), "height": (-1, 1, 2), "width": (-1, 1, 2)}
    for key, steps in tried.items():
        for step in steps:
            wrong = replace(family.size, **{key: getattr(family.size, key) + step})
            with pytest.raises(ConfigError, match=rf"^video\.{key}: .*; try \d+$") as refused:
                at_size(model, wrong)
            nearest = int(str(refused.value).rpartition(" ")[2])
            right = replace(wrong, **{key: nearest})
            ours = VideoPolicy(at_size(model, right), DRAW, lambda _: StepPlan.all(2), rows=1)
            video = ours.sample(asked(folders(name), PROMPT), [7])[0].video
            assert video.shape == (right.num_frames, 3, right.height, right.width)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_on_disk_are_those_of_the_encoders(
    name: str, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second model reads them without one forward pass of its text encoders."""
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path))
    options = ("memory", "disk", "disk")
    models = [
        load_video_model(
            str(folders(name)), FAMILIES[name].size, dtype=torch.float32, texts=TextOptions(cache)
        )
        for cache in options
    ]
    calls = [encoder_calls(model.pipeline) for model in models]
    plain, *others = [model.encode([PROMPT, OTHER]).tensors for model in models]
    assert calls[0] and calls[0] == calls[1] and calls[2] == []
    for found in others:
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_the_text_length_of_evaluation_leaves_that_of_training_alone(folders: Folders) -> None:
    family = FAMILIES["hunyuan_video15"]
    model = policy(folders("hunyuan_video15"), family).model
    longer = at_size(model, replace(family.size, max_sequence_length=12))
    for asked_of, length in ((model, 8), (longer, 12), (model, 8)):
        found = asked_of.encode([f"{OTHER} {length}"]).tensors
        assert found["encoder_hidden_states"].shape[1] == length


@pytest.mark.parametrize("name", WITH_ENCODER)
def test_encoding_undoes_the_scale_of_decoding(name: str, folders: Folders) -> None:
    """A video through the adapter and back is a video through the VAE alone and back."""
    ours = policy(folders(name), FAMILIES[name])
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(
        ours.sample(asked(folders(name), PROMPT), [3])[0].video.shape, generator=generator
    )
    assert isinstance(ours.model, VideoEncoder)
    latents = ours.model.encode_video(video[None])
    assert latents.shape[1:] == ours.model.latent_shape and latents.dtype == torch.float32
    pipeline = ours.model.pipeline
    with torch.no_grad():
        codes = pipeline.vae.encode(2 * video[None].transpose(1, 2) - 1).latent_dist.mode()
        timestep = (torch.zeros(1),) if pipeline.vae.config.get("timestep_conditioning") else ()
        expected = pipeline.video_processor.postprocess_video(
            pipeline.vae.decode(codes, *timestep, return_dict=False)[0], output_type="pt"
        )
        torch.testing.assert_close(ours.model.decode(latents), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_folder_loads_with_the_trained_weights(
    name: str, folders: Folders, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    ours = policy(folders(name), family)
    with torch.no_grad():
        for p in trainable(ours.module).values():
            p.add_(0.01)
    ours.save_pretrained(tmp_path)
    loaded = policy(tmp_path, family)
    for key, p in ours.module.named_parameters():
        assert torch.equal(p, loaded.module.get_parameter(key)), key
    assert torch.equal(
        loaded.sample(asked(folders(name), PROMPT), [3])[0].video,
        ours.sample(asked(folders(name), PROMPT), [3])[0].video,
    )


@pytest.mark.parametrize("name", NAMES)
def test_lora_starts_as_the_identity_and_its_export_is_what_diffusers_loads(
    name: str, folders: Folders, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    ours = policy(folders(name), family)
    plain = ours.sample(asked(folders(name), PROMPT), [3])[0].video
    add_lora(ours.module, LoraConfig(rank=2, alpha=4, targets=family.lora), seed=0)
    assert torch.equal(ours.sample(asked(folders(name), PROMPT), [3])[0].video, plain)
    learning = trainable(ours.module)
    assert learning and all("lora_" in key for key in learning)
    with torch.no_grad():
        for key, p in learning.items():
            if "lora_B" in key:
                p.normal_(generator=torch.Generator().manual_seed(0))
    changed = ours.sample(asked(folders(name), PROMPT), [3])[0].video
    assert (changed - plain).abs().max() > 1e-3
    ours.save_pretrained(tmp_path)
    fresh = policy(folders(name), family)
    family.load_lora(fresh.model.pipeline, tmp_path)
    torch.testing.assert_close(
        fresh.sample(asked(folders(name), PROMPT), [3])[0].video, changed, rtol=0, atol=1e-4
    )
