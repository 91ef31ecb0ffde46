"""ONNX models on the CPU, in the number of threads torch has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.config import ConfigError


def load_onnx(file: Path) -> Callable[[Float[Tensor, "B ..."]], Float[Tensor, "B ..."]]:
    """A model of one input: a batch in, its first output for that batch out."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("ONNX weights need `pip install 'mmrl[real]'`") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return torch.from_numpy(session.run(None, {name: batch.float().numpy()})[0])

    return run
