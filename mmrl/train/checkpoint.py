"""Checkpoints that a kill cannot tear: written beside, synced, renamed; the last good one is kept.

A checkpoint is a folder `step-000010` of safetensors (weights, their float32 masters where there
are any, one file per anchor), the optimizer and generator as plain tensors, and `state.json`;
`manifest.json` holds the sha256 of each file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmrl.config import UserError
from mmrl.data.files import json_text
from mmrl.reward.faults import FaultMemory
from mmrl.train.optimizer import masters, set_masters
from mmrl.train.state import AlarmState, TrainState
from mmrl.trust_region.controller import ControllerState
from mmrl.trust_region.schedule import AnchorKind
from mmrl.trust_region.weights import Snapshot, check_names, trainable

logger = logging.getLogger(__name__)
FORMAT = 1
LEAST_FREE = 2**20
"""Bytes; with fewer left a write that failed met a full disk."""


class CheckpointError(UserError):
    """A checkpoint that does not fit this run, or no sound one at all."""


def save_checkpoint(folder: Path, module: nn.Module, state: TrainState, *, keep: int) -> Path:
    """Write the whole TrainState under `folder`, atomically, and drop all but the newest `keep`.

    CheckpointError on a full disk; whatever fails, older checkpoints stay and no part is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{state.step:06d}"
    if final.exists():
        if _damaged(final) is None:
            return final
        shutil.rmtree(final)
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(temporary, module, state)
    except Exception as error:
        is_full = _is_full(folder, error)
        shutil.rmtree(temporary, ignore_errors=True)
        if is_full:
            raise CheckpointError(_told_of_full_disk(folder, state.step)) from error
        raise
    os.replace(temporary, final)
    _sync(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _is_full(folder: Path, error: Exception) -> bool:
    """Whether a write failed for want of space; torch and safetensors raise no OSError for it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    said = str(error)
    named = any(f"os error {number}" in said for number in (errno.ENOSPC, errno.EDQUOT))
    return named or shutil.disk_usage(folder).free < LEAST_FREE


def _told_of_full_disk(folder: Path, step: int) -> str:
    kept = checkpoints(folder)
    last = f"the last good checkpoint is {kept[-1].name}" if kept else "there is none before it"
    return (
        f"{folder}: the disk is full, so step {step} was not saved; {last}. Free some space, then "
        f"`mmrl resume {folder.parent}`"
    )


def newest_sound(folder: Path) -> Path | None:
    """The newest checkpoint whose files match their hashes; a damaged one is passed over aloud."""
    for path in reversed(checkpoints(folder)):
        damaged = _damaged(path)
        if damaged is None:
            return path
        logger.warning("%s: %s does not match its hash; trying the one before", path, damaged)
    return None


def load_checkpoint(path: Path, module: nn.Module, state: TrainState) -> None:
    """Put everything back: weights, optimizer, anchors, controllers, cursor, generator."""
    record: dict[str, Any] = json.loads((path / "state.json").read_text("utf-8"))
    if record["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {record['format']}, this version reads {FORMAT}")
    if sorted(record["anchors"]) != sorted(state.anchors):
        held, asked = sorted(record["anchors"]), sorted(state.anchors)
        raise CheckpointError(f"{path}: holds anchors {held}, the config asks for {asked}")
    load_weights(path, module)
    tensors = torch.load(path / "state.pt", weights_only=True, map_location="cpu")
    state.optimizer.load_state_dict(tensors["optimizer"])
    kept = path / "masters.safetensors"
    set_masters(module, state.optimizer, load_file(kept) if kept.is_file() else None)
    state.generator.set_state(tensors["generator"])
    for name, anchor in state.anchors.items():
        _fill(anchor.weights, load_file(path / f"anchor-{name}.safetensors"), path)
        anchor.moved_at = record["anchors"][name]["moved_at"]
        anchor.version = record["anchors"][name]["version"]
    state.controllers = {k: ControllerState(**v) for k, v in record["controllers"].items()}
    state.alarm = _alarm(record.get("alarm", {}))
    state.faults = [
        {name: FaultMemory.of(kept) for name, kept in process.items()}
        for process in record.get("faults", [])
    ]
    state.stream.epoch, state.stream.position = record["epoch"], record["position"]
    state.step, state.updates = record["step"], record["updates"]
    state.skipped = record.get("skipped", 0)


def _alarm(kept: dict[str, Any]) -> AlarmState:
    """The remembered alarm; null stands for the mean of a step that had none."""
    history = {
        name: [math.nan if mean is None else mean for mean in means]
        for name, means in kept.get("history", {}).items()
    }
    return AlarmState(**{**kept, "history": history})


def load_weights(path: Path, module: nn.Module) -> None:
    """Only the trained weights of a checkpoint, into a module that has the same ones."""
    live = {name: p.data for name, p in trainable(module).items()}
    _fill(live, load_file(path / "weights.safetensors"), path)


def _write(folder: Path, module: nn.Module, state: TrainState) -> None:
    weights = {name: p.detach().cpu().contiguous() for name, p in trainable(module).items()}
    save_file(weights, folder / "weights.safetensors")
    exact = masters(module, state.optimizer)
    if exact:
        save_file({k: p.detach().cpu() for k, p in exact.items()}, folder / "masters.safetensors")
    for name, anchor in state.anchors.items():
        kept = {key: value.cpu().contiguous() for key, value in anchor.weights.items()}
        save_file(kept, folder / f"anchor-{name}.safetensors")
    tensors = {
        "optimizer": state.optimizer.state_dict(),
        "generator": state.generator.get_state(),
    }
    torch.save(tensors, folder / "state.pt")
    _write_json(folder / "state.json", _record(state))
    files = sorted(path for path in folder.iterdir())
    _write_json(folder / "manifest.json", {path.name: _sha256(path) for path in files})
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _record(state: TrainState) -> dict[str, Any]:
    anchors = cast(dict[AnchorKind, Any], state.anchors)
    return {
        "format": FORMAT,
        "step": state.step,
        "updates": state.updates,
        "skipped": state.skipped,
        "epoch": state.stream.epoch,
        "position": state.stream.position,
        "anchors": {
            name: {"moved_at": anchor.moved_at, "version": anchor.version}
            for name, anchor in anchors.items()
        },
        "controllers": {name: asdict(found) for name, found in state.controllers.items()},
        "alarm": asdict(state.alarm),
        "faults": [{k: asdict(v) for k, v in process.items()} for process in state.faults],
    }


@torch.no_grad()
def _fill(into: Snapshot, tensors: Snapshot, path: Path) -> None:
    try:
        check_names(tensors, {name: nn.Parameter(value) for name, value in into.items()})
    except ValueError as error:
        raise CheckpointError(f"{path}: not from this model: {error}") from error
    for name, value in into.items():
        value.copy_(tensors[name])


def _damaged(path: Path) -> str | None:
    try:
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "manifest.json"
    for name, expected in manifest.items():
        file = path / name
        if not file.is_file() or _sha256(file) != expected:
            return name
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json_text(tree, 1, sort_keys=True), encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
