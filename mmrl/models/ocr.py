"""Text in pictures: PP-OCRv4 as the package rapidocr-onnxruntime runs it, Chinese and English."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from mmrl.config import ConfigError


@cache
def ocr_engine() -> Callable[[UInt8[Tensor, "3 H W"]], str]:
    """A frame's texts in reading order, with a space between boxes; "" where nothing is read.

    The engine returns nothing for pictures of another type than 8 bits, so that is what it gets;
    it takes arrays for BGR.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ConfigError("reading text needs `pip install 'mmrl[real]'`") from error

    engine = RapidOCR(intra_op_num_threads=torch.get_num_threads())

    def read(frame: UInt8[Tensor, "3 H W"]) -> str:
        found, _ = engine(rearrange(frame.flip(0), "c h w -> h w c").contiguous().numpy())
        return " ".join(line[1] for line in found or ())

    return read


def ocr_origin() -> dict[str, str]:
    """Which engine, and the hash of its recognition model."""
    import rapidocr_onnxruntime

    folder = Path(rapidocr_onnxruntime.__file__).parent
    file = folder / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    return {
        "model": f"rapidocr-onnxruntime {version('rapidocr-onnxruntime')}, PP-OCRv4",
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
