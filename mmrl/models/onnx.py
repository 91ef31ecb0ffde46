"""ONNX models: on CUDA where onnxruntime-gpu is installed, else on torch's number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.models.place import pick_device


def load_onnx(
    file: Path, device: str | None = "cpu"
) -> Callable[[Float[Tensor, "B ..."]], Float[Tensor, "B ..."]]:
    """A model of one input: a batch in, its first output for that batch out, both on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("ONNX weights need `pip install 'mmrl[real]'`") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = choose_providers(device, onnxruntime.get_available_providers())
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    name = session.get_inputs()[0].name

    def run(batch: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return torch.from_numpy(session.run(None, {name: batch.float().numpy()})[0])

    return run


def choose_providers(device: str | None, there: Sequence[str]) -> list[Any]:
    """What runs the model, the first that can; null takes CUDA only where onnxruntime has it.

    ConfigError where CUDA is asked for by name and onnxruntime has none.
    """
    found = pick_device(device)
    if found.type != "cuda":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in there:
        return [("CUDAExecutionProvider", {"device_id": found.index or 0}), "CPUExecutionProvider"]
    if device is not None:
        raise ConfigError("ONNX weights on CUDA need onnxruntime-gpu; use cpu", key="device")
    return ["CPUExecutionProvider"]
