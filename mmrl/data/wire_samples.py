"""Samples to requests and back: what a client sends, what a scorer's process sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from mmrl.data.images import load_image
from mmrl.data.video import quantize, read_video
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
    """The samples of a request; pictures and videos of prompts are put into `folder` as files."""
    found: list[Sample] = []
    written: dict[str, Path] = {}
    for sample in request.samples:
        prompt = _read_prompt(sample.prompt, arrays, folder, written)
        if isinstance(sample, TensorVideo):
            video = torch.tensor(arrays[sample.video])
            video = video.float() / 255 if video.dtype == torch.uint8 else video
            found.append(VideoSample(prompt, video, sample.fps))
        else:
            told = (sample.text, sample.num_tokens, sample.finished, sample.confidence)
            found.append(TextSample(prompt, *told))
    return found


def _read_prompt(
    prompt: WirePrompt, arrays: Arrays, folder: Path, written: dict[str, Path]
) -> Prompt:
    """A file's name is a number of ours: the tensor's name is the client's word, not a path."""
    for name in prompt.images:
        if name not in written:
            written[name] = folder / f"{len(written)}.png"
            Image.fromarray(arrays[name]).save(written[name], compress_level=1)
    clips = [names[0] for names in prompt.videos]
    for name in clips:
        if name not in written:
            written[name] = folder / f"{len(written)}.tiff"
            first, *rest = (Image.fromarray(frame) for frame in arrays[name].transpose(0, 2, 3, 1))
            first.save(written[name], save_all=True, append_images=rest)  # keeps equal frames apart
    return Prompt(
        prompt.text,
        tuple(written[name] for name in prompt.images),
        tuple(written[name] for name in clips),
        answer=prompt.answer,
        metadata=prompt.metadata,
    )


def _with_pngs(sample: Sample) -> dict[str, Any]:
    images = [write_png(np.asarray(load_image(path))) for path in sample.prompt.images]
    videos = [[write_png(frame) for frame in _recorded(path)] for path in sample.prompt.videos]
    if isinstance(sample, VideoSample):
        frames = [write_png(frame) for frame in quantize(sample.video.cpu()).numpy()]
        return {**_plain(sample, images, videos), "frames": frames}
    return _plain(sample, images, videos)


def _with_names(sample: Sample, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def keep(array: np.ndarray) -> str:
        arrays[str(len(arrays))] = array
        return str(len(arrays) - 1)

    images = [keep(np.asarray(load_image(path))) for path in sample.prompt.images]
    clips = [_recorded(path).transpose(0, 3, 1, 2) for path in sample.prompt.videos]
    videos = [[keep(clip)] for clip in clips]
    if isinstance(sample, VideoSample):
        video = keep(sample.video.float().cpu().numpy())
        return {**_plain(sample, images, videos), "video": video}
    return _plain(sample, images, videos)


@lru_cache(maxsize=16)
def _recorded(path: Path) -> np.ndarray:
    """(F, H, W, 3) uint8 of a prompt's video; a group asks for the same one many times."""
    return quantize(read_video(path)).numpy()


def _plain(sample: Sample, images: list[str], videos: list[list[str]]) -> dict[str, Any]:
    """All of a sample but its frames."""
    asked = sample.prompt
    prompt = {
        "text": asked.text,
        "answer": asked.answer,
        "metadata": dict(asked.metadata),
        "images": images,
        **({"videos": videos} if videos else {}),
    }
    if isinstance(sample, VideoSample):
        return {"kind": "video", "prompt": prompt, "fps": float(sample.fps)}
    return {
        "kind": "text",
        "prompt": prompt,
        "text": sample.text,
        "num_tokens": sample.num_tokens,
        "finished": sample.finished,
        **({} if sample.confidence is None else {"confidence": sample.confidence}),
    }
