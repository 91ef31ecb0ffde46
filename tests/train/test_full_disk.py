"""A full disk costs the checkpoint that did not fit, and none before it."""

from __future__ import annotations

import errno
from collections import namedtuple
from pathlib import Path

import pytest
from torch import nn

from mmrl.recipe import Recipe
from mmrl.train import checkpoint
from mmrl.train.checkpoint import CheckpointError, checkpoints, newest_sound, save_checkpoint
from mmrl.train.loop import initial_state, load_config
from mmrl.train.state import TrainState
from tests.tiny import video_config

Usage = namedtuple("Usage", "total used free")
TORCH = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
RUST = Exception("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[nn.Module, TrainState]:
    config = load_config(video_config(tmp_path_factory.mktemp("run")))
    recipe: Recipe = config.build()
    return recipe.policy.module, initial_state(recipe, config.train)


def write_until(error: Exception):
    """What a full disk leaves: a part of the files."""

    def write(folder: Path, module: nn.Module, state: TrainState) -> None:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "free"),
    [(TORCH, 0), (RUST, 2**30), (OSError(errno.ENOSPC, "No space left on device"), 2**30)],
    ids=["torch", "safetensors", "file"],
)
def test_a_full_disk_is_told_in_one_line_and_the_last_good_checkpoint_stays(
    made, error: Exception, free: int, tmp_path: Path, monkeypatch
) -> None:
    module, state = made
    folder = tmp_path / "checkpoints"
    state.step = 2
    good = save_checkpoint(folder, module, state, keep=2)
    monkeypatch.setattr(checkpoint, "_write", write_until(error))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: Usage(1, 1, free))
    state.step = 4
    with pytest.raises(CheckpointError, match=r"checkpoints: the disk is full, so step 4 .*000002"):
        save_checkpoint(folder, module, state, keep=2)
    assert newest_sound(folder) == good
    assert list(folder.iterdir()) == [good]


def test_another_failure_keeps_its_own_words_and_leaves_no_part(
    made, tmp_path: Path, monkeypatch
) -> None:
    module, state = made
    monkeypatch.setattr(checkpoint, "_write", write_until(RuntimeError("no such device")))
    with pytest.raises(RuntimeError, match="no such device"):
        save_checkpoint(tmp_path, module, state, keep=2)
    assert checkpoints(tmp_path) == [] and list(tmp_path.iterdir()) == []
