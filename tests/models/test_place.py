"""Scorers on a device and in a precision of choice: all that meets the model is there too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models.amt import Amt, middle_by
from mmrl.models.clip import load_clip
from mmrl.models.onnx import choose_providers
from mmrl.models.place import CPU, Place, pick_device, to_host
from mmrl.models.raft import flow_by
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample
from tests.models.elsewhere import ELSEWHERE, Watched
from tests.real_weights import needs

FRAMES = torch.randint(
    0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
HALF = Place(torch.device("cpu"), torch.bfloat16)
CLIPS = ("assets/tiny-clip", "assets/tiny-clip/transformers", "assets/tiny-pick")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_without_cuda_null_is_the_cpu_and_cuda_by_name_is_refused(no_cuda: None) -> None:
    assert pick_device(None) == pick_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:2"):
        with pytest.raises(ConfigError, match=f"there is no {name}"):
            pick_device(name)


def test_with_cuda_every_process_has_its_own_whatever_thread_asks(
    four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device(None) == pick_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert pick_device(None) == torch.device("cuda", 2)
    assert pick_device("cuda:3") == torch.device("cuda", 3)
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="there is no cuda:4"):
        pick_device("cuda:4")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "meta", "cuda:x"])
def test_a_device_of_another_name_is_refused_with_the_config(device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        load_reward("clip_score", model=CLIPS[0], device=device)


def test_onnx_runs_on_cuda_only_where_onnxruntime_can(four_gpus: None) -> None:
    here, both = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose_providers("cpu", both) == choose_providers(None, here) == here
    assert choose_providers("cuda:3", both)[0] == ("CUDAExecutionProvider", {"device_id": 3})
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        choose_providers("cuda:3", here)


def test_the_watch_sees_a_tensor_that_was_left_behind() -> None:
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2)]
    inputs = [torch.rand(1, 3, 8, 8), torch.tensor([1]), torch.rand(1, 2)]
    for layer, given in zip(layers, inputs, strict=True):
        there = ELSEWHERE.holds(layer)
        with Watched(), pytest.raises(RuntimeError, match="cpu"):
            there(given)
        with Watched(), torch.no_grad():
            assert to_host(there(ELSEWHERE.whole(given))).device.type == "cpu"


def flow(place: Place) -> torch.Tensor:
    from torchvision.models.optical_flow import raft_large

    return flow_by(raft_large(weights=None), place)(*torch.rand(2, 3, 130, 128))


def middle(place: Place) -> torch.Tensor:
    return middle_by(Amt(), place)(*torch.rand(2, 3, 130, 128))


def real(name: str) -> Callable[[Place], torch.Tensor]:
    def embed(place: Place) -> torch.Tensor:
        from mmrl.models import clip_b16, mobilenet, sentences

        needs(name)
        if name == "minilm":
            return sentences.embed_texts(["a red three"], place)
        build = {"clip_b16_image": clip_b16.clip_b16_image, "mobilenet_v2": mobilenet.mobilenet_v2}
        return build[name]("memory", place)(FRAMES)

    return embed


def pictures(model: str) -> Callable[[Place], torch.Tensor]:
    return lambda place: load_clip(model, place=place).embed_images(FRAMES)


def texts(model: str) -> Callable[[Place], torch.Tensor]:
    return lambda place: load_clip(model, place=place).embed_texts(["a", "a red three"])


MODELS = {
    **{f"{model} pictures": pictures(model) for model in CLIPS},
    **{f"{model} texts": texts(model) for model in CLIPS},
    "raft": flow,
    "amt": middle,
}
REAL = {name: real(name) for name in ("clip_b16_image", "mobilenet_v2", "minilm")}


def check(run: Callable[[Place], torch.Tensor]) -> None:
    with torch.no_grad(), Watched():
        found = run(ELSEWHERE)
    assert found.device.type == "cpu" and found.dtype == torch.float32


@pytest.mark.parametrize("name", MODELS)
def test_all_that_meets_a_model_is_on_its_device_and_scores_come_back(name: str) -> None:
    check(MODELS[name])


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_all_that_meets_a_real_model_is_on_its_device(name: str) -> None:
    check(REAL[name])


@pytest.mark.parametrize("model", CLIPS)
def test_a_clip_in_bfloat16_gives_float32_embeddings_close_to_the_whole_one(model: str) -> None:
    whole, half = load_clip(model), load_clip(model, place=HALF)
    assert half.logit_scale == whole.logit_scale
    with torch.no_grad():
        for mine, theirs in (
            (half.embed_images(FRAMES), whole.embed_images(FRAMES)),
            (half.embed_texts(["a red three"]), whole.embed_texts(["a red three"])),
        ):
            assert mine.dtype == torch.float32 and not mine.equal(theirs)
            torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=0)


def test_weights_saved_in_half_precision_run_in_the_precision_that_is_asked(
    tmp_path: Path,
) -> None:
    """transformers loads a model in the type it was saved in, and no half type is fast on a CPU."""
    from transformers import CLIPModel, CLIPProcessor

    folder = CLIPS[1]
    CLIPModel.from_pretrained(folder).half().save_pretrained(tmp_path)
    CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    with torch.no_grad():
        found = load_clip(str(tmp_path), place=CPU).embed_images(FRAMES)
        torch.testing.assert_close(found, load_clip(folder).embed_images(FRAMES), atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", ["clip_score", "pick_score", "hps"])
def test_a_reward_in_bfloat16_scores_as_the_one_in_float32(name: str) -> None:
    video = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    samples = [VideoSample(Prompt(text), video) for text in ("a red three", "a blue seven")]
    model = "assets/tiny-clip" if name == "hps" else "assets/tiny-pick"
    whole, half = (
        load_reward(name, model=model, device="cpu", precision=precision)(samples)
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=2e-2, rtol=2e-2)
