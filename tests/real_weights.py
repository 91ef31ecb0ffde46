"""Skips for tests that need fetched weights or an optional engine."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from mmrl.data.files import cache_folder


def needs(*names: str) -> None:
    """Skip unless `mmrl data fetch` of each name was run, and the engine of ONNX is there."""
    missing = [name for name in names if not (cache_folder() / name).is_dir()]
    if missing:
        pytest.skip(f"`mmrl data fetch {missing[0]}` first")
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        pytest.skip("`pip install 'mmrl[real]'` first")
