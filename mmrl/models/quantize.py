"""Weights in four bits, for adapters to learn beside (QLoRA, arXiv:2305.14314); `mmrl[qlora]`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from mmrl.config import ConfigError

Quantization = Literal["none", "4bit"]


def four_bit(dtype: torch.dtype, *, without: Sequence[str]) -> BitsAndBytesConfig:
    """NF4 with quantized constants, matrix products in `dtype`; parts in `without` stay whole.

    ConfigError where bitsandbytes or a CUDA device is missing: its CPU kernels do not train.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "'4bit' needs bitsandbytes, which is not here: pip install 'mmrl[qlora]'",
            key="quantization",
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            "'4bit' needs a CUDA device, and there is none; use quantization: none",
            key="quantization",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(without),
    )
