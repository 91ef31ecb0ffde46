"""Samples to requests and back: what a client sends, what a scorer's process sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from mmrl.data.images import load_image
from mmrl.data.video import quantize
from mmrl.data.wire import VERSION, Arrays, TensorRequest, TensorVideo, WirePrompt, pack, write_png
from mmrl.types import Prompt, Sample, TextSample, VideoSample

Encoding = Literal["png", "float32"]
"""8-bit frames, or the very values."""


def png_request(scorer: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """The JSON of a `ScoreRequest`. Frames are rounded to 8 bits: off by 1/510 at most."""
    return {"version": VERSION, "scorer": scorer, "samples": [_with_pngs(s) for s in samples]}


def tensor_request(scorer: str, samples: Sequence[Sample]) -> bytes:
    """The safetensors body of a `TensorRequest`, videos as float32: nothing is rounded."""
    arrays: dict[str, np.ndarray] = {}
    trees = [_with_names(sample, arrays) for sample in samples]
    return pack({"version": VERSION, "scorer": scorer, "samples": trees}, arrays)


def read_samples(request: TensorRequest, arrays: Arrays, folder: Path) -> list[Sample]:
    """The samples of a request; pictures of prompts are put into `folder` as PNG files."""
    found: list[Sample] = []
    written: dict[str, Path] = {}
    for sample in request.samples:
        prompt = _read_prompt(sample.prompt, arrays, folder, written)
        if isinstance(sample, TensorVideo):
            video = torch.tensor(arrays[sample.video])
            video = video.float() / 255 if video.dtype == torch.uint8 else video
            found.append(VideoSample(prompt, video, sample.fps))
        else:
            found.append(TextSample(prompt, sample.text, sample.num_tokens, sample.finished))
    return found


def _read_prompt(
    prompt: WirePrompt, arrays: Arrays, folder: Path, written: dict[str, Path]
) -> Prompt:
    """A file's name is a number of ours: the tensor's name is the client's word, not a path."""
    for name in prompt.images:
        if name not in written:
            written[name] = folder / f"{len(written)}.png"
            Image.fromarray(arrays[name]).save(written[name], compress_level=1)
    paths = tuple(written[name] for name in prompt.images)
    return Prompt(prompt.text, paths, answer=prompt.answer, metadata=prompt.metadata)


def _with_pngs(sample: Sample) -> dict[str, Any]:
    images = [write_png(np.asarray(load_image(path))) for path in sample.prompt.images]
    if isinstance(sample, VideoSample):
        frames = [write_png(frame) for frame in quantize(sample.video.cpu()).numpy()]
        return {**_plain(sample, images), "frames": frames}
    return _plain(sample, images)


def _with_names(sample: Sample, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def keep(array: np.ndarray) -> str:
        arrays[str(len(arrays))] = array
        return str(len(arrays) - 1)

    images = [keep(np.asarray(load_image(path))) for path in sample.prompt.images]
    if isinstance(sample, VideoSample):
        video = keep(sample.video.float().cpu().numpy())
        return {**_plain(sample, images), "video": video}
    return _plain(sample, images)


def _plain(sample: Sample, images: list[str]) -> dict[str, Any]:
    """All of a sample but its frames."""
    asked = sample.prompt
    prompt = {
        "text": asked.text,
        "answer": asked.answer,
        "metadata": dict(asked.metadata),
        "images": images,
    }
    if isinstance(sample, VideoSample):
        return {"kind": "video", "prompt": prompt, "fps": float(sample.fps)}
    return {
        "kind": "text",
        "prompt": prompt,
        "text": sample.text,
        "num_tokens": sample.num_tokens,
        "finished": sample.finished,
    }
