"""Text embeddings on disk: read by the next run, and by no other model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmrl.config import UserError
from mmrl.models import text_cache
from mmrl.models.pipeline import load_video_model
from mmrl.models.text_cache import identity
from mmrl.models.wan import WanModel
from mmrl.policies.video_model import TextCacheKind, TextOptions, VideoModel
from tests.models.tiny_parts import encoder_calls
from tests.models.tiny_pipelines import FAMILIES, save

FAMILY = FAMILIES["wan22_5b"]
TEXTS = ["a red three", "a blue three moving", "a red three"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(FAMILY, tmp_path_factory.mktemp("wan"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


def load(
    folder: Path, cache: TextCacheKind | None = "disk", *, length: int = 8, offload: bool = False
) -> WanModel:
    size = replace(FAMILY.size, max_sequence_length=length)
    options = TextOptions(cache, offload)
    found = load_video_model(str(folder), size, dtype=torch.float32, texts=options)
    assert isinstance(found, WanModel)
    return found


def embeddings(model: VideoModel) -> torch.Tensor:
    return model.encode(TEXTS).tensors["encoder_hidden_states"]


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_a_second_model_reads_what_the_first_wrote_bit_for_bit(folder: Path, cache: Path) -> None:
    first, second = load(folder), load(folder)
    written, calls = encoder_calls(first.pipeline), encoder_calls(second.pipeline)
    expected = embeddings(first)
    assert len(files(cache)) == len(written) == 2
    assert torch.equal(embeddings(second), expected) and calls == []
    assert torch.equal(expected[0], expected[2]) and not torch.equal(expected[0], expected[1])


def test_memory_alone_encodes_each_text_once_and_writes_nothing(folder: Path, cache: Path) -> None:
    model = load(folder, "memory")
    calls = encoder_calls(model.pipeline)
    expected = embeddings(model)
    assert torch.equal(embeddings(model), expected)
    assert len(calls) == 2 and not cache.exists()


def test_without_a_cache_every_call_encodes(folder: Path, cache: Path) -> None:
    model = load(folder, None)
    calls = encoder_calls(model.pipeline)
    assert torch.equal(embeddings(model), embeddings(model))
    assert len(calls) == 4 and not cache.exists()


def test_an_embedding_does_not_depend_on_the_texts_around_it(folder: Path) -> None:
    alone = load(folder, None).encode(TEXTS[1:2]).tensors["encoder_hidden_states"]
    assert torch.equal(embeddings(load(folder, None))[1:2], alone)


@pytest.mark.parametrize("torn", [b"", b"not safetensors", None])
def test_a_torn_file_is_ignored_and_written_again(
    torn: bytes | None, folder: Path, cache: Path
) -> None:
    expected = embeddings(load(folder))
    [first, _] = files(cache)
    whole = first.read_bytes()
    first.write_bytes(whole[:-7] if torn is None else torn)
    model = load(folder)
    calls = encoder_calls(model.pipeline)
    assert torch.equal(embeddings(model), expected)
    assert len(calls) == 1 and first.read_bytes() == whole


def test_a_sound_file_of_another_text_is_ignored_and_written_again(
    folder: Path, cache: Path
) -> None:
    expected = embeddings(load(folder))
    first, second = files(cache)
    first.write_bytes(second.read_bytes())
    assert torch.equal(embeddings(load(folder)), expected)
    save_file(load_file(second), second)  # without the key
    model = load(folder)
    calls = encoder_calls(model.pipeline)
    assert torch.equal(embeddings(model), expected) and len(calls) == 1


def test_other_encoder_weights_lengths_and_tokenizers_have_keys_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    pipeline = load(folder).pipeline
    known = identity(pipeline, 8)
    copied = tmp_path / "elsewhere"
    pipeline.save_pretrained(copied)
    assert identity(load(copied).pipeline, 8) == known
    assert identity(pipeline, 9) != known
    with torch.no_grad():
        next(pipeline.transformer.parameters()).add_(1)
        assert identity(pipeline, 8) == known
        weight = next(pipeline.text_encoder.parameters())
        weight[0, 0] += 1
    assert identity(pipeline, 8) != known
    with torch.no_grad():
        weight[0, 0] -= 1
    pipeline.tokenizer.add_tokens(["four"])
    assert identity(pipeline, 8) != known


def test_the_last_used_embeddings_stay_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for two: the third pushes out the one that was not used for longest."""
    monkeypatch.setattr(text_cache, "MEMORY_BYTES", 2 * 8 * 8 * 4)
    model = load(folder, "memory")
    calls = encoder_calls(model.pipeline)
    for texts, known in ((["a", "red"], 2), (["a"], 2), (["up"], 3), (["a"], 3), (["red"], 4)):
        model.encode(texts)
        assert len(calls) == known
    assert len(model.encode(["a", "red", "up", "left"])) == 4


def test_a_folder_that_cannot_be_written_is_one_clear_line(folder: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in the way")
    with pytest.raises(UserError, match=r"^cannot keep text embeddings below .*MMRL_CACHE"):
        embeddings(load(folder))


def test_an_offloaded_encoder_visits_the_device_for_new_texts_alone(folder: Path) -> None:
    """The meta device stands in for a GPU: what is moved there has no numbers left."""
    model = load(folder, offload=True)
    expected = embeddings(model)
    model.to(torch.device("meta"))
    assert next(model.pipeline.transformer.parameters()).device.type == "meta"
    assert next(model.pipeline.vae.parameters()).device.type == "meta"
    assert next(model.pipeline.text_encoder.parameters()).device.type == "cpu"
    seen = []
    model.pipeline.text_encoder.register_forward_pre_hook(
        lambda encoder, _: seen.append(next(encoder.parameters()).device.type)
    )
    assert embeddings(model).device.type == "meta" and seen == []
    assert expected.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_offloaded_encoder_runs_on_the_gpu_and_leaves_it(folder: Path) -> None:
    model = load(folder, "memory", offload=True)
    model.to(torch.device("cuda"))
    ran = []
    encoder = model.pipeline.text_encoder
    encoder.register_forward_pre_hook(lambda part, _: ran.append(part.device.type))
    assert embeddings(model).device.type == "cuda" and ran == ["cuda", "cuda"]
    assert encoder.device.type == "cpu"
