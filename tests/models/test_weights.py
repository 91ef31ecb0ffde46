"""Where weights are looked for: the right bytes, or one line that says what to do."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mmrl.data.packaged import DATASETS
from mmrl.models import weights
from mmrl.models.weights import MINILM, Weights, WeightsUnavailable

CONTENT = b"some weights"
PINNED = Weights("nudenet", "320n.onnx", hashlib.sha256(CONTENT).hexdigest())


def put(folder: Path, content: bytes = CONTENT) -> Path:
    file = folder / PINNED.package / PINNED.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A local folder of weights and a cache of fetched packages."""
    local, cache = tmp_path / "local", tmp_path / "cache"
    monkeypatch.setenv("MMRL_WEIGHTS", str(local))
    monkeypatch.setenv("MMRL_CACHE", str(cache))
    return local, cache


def test_a_local_folder_comes_before_the_fetched_package(places) -> None:
    local, cache = places
    fetched = put(cache)
    assert PINNED.path() == fetched
    nearer = put(local)
    assert PINNED.path() == nearer


def test_a_file_with_another_hash_is_passed_over_and_named(places) -> None:
    local, cache = places
    wrong, fetched = put(local, b"other weights"), put(cache)
    assert PINNED.path() == fetched
    fetched.unlink()
    with pytest.raises(WeightsUnavailable, match=f"{wrong} has another sha256"):
        PINNED.path()


def test_missing_weights_name_the_command_that_fetches_them(places) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        PINNED.path()
    message = str(caught.value)
    assert "`mmrl data fetch nudenet`" in message and "\n" not in message


def test_a_file_of_the_hubs_cache_is_used_where_its_bytes_are_the_pinned_ones(
    places, tmp_path, monkeypatch
) -> None:
    hub = tmp_path / "hub"
    folder = hub / "models--sentence-transformers--all-MiniLM-L6-v2"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/model.safetensors").write_bytes(CONTENT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(hub))
    pinned = replace(MINILM, sha256=PINNED.sha256)
    assert pinned.path() == folder / "snapshots/abc/model.safetensors"
    with pytest.raises(WeightsUnavailable, match="another sha256"):
        MINILM.path()


def test_every_pinned_file_belongs_to_a_package_that_can_be_fetched() -> None:
    pinned = [value for value in vars(weights).values() if isinstance(value, Weights)]
    assert len(pinned) >= 7
    for one in pinned:
        package = DATASETS[one.package]
        assert package.kind == "weights"
        assert one.file.startswith(package.only) and len(one.sha256) == 64
