"""Samples on the wire: JSON with PNG frames, or one safetensors body. Nothing that can run code."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mmrl.data.images import DeepImageError, as_rgb

VERSION = 1
TENSOR_TYPE = "application/vnd.safetensors"
MAX_PIXELS = 2**28
"""Pixels of all pictures of one request: a small PNG may unpack to gigabytes."""
Arrays = Mapping[str, np.ndarray]
Picture = Annotated[str, Field(description="A PNG file in base64. Paths and URLs are not read.")]
Key = Annotated[str, Field(description="The name of a tensor of the same body.")]


class WireError(ValueError):
    """A body that has the right shape and wrong contents: a path, no PNG, a missing tensor."""


class Strict(BaseModel):
    """Unknown keys are refused, as is a number that came as text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class WirePrompt(Strict):
    """What was asked. Pictures and recorded videos travel by content."""

    text: str
    answer: str | None = None
    metadata: dict[str, str | int | float] = {}
    images: list[Picture] = []
    videos: list[Annotated[list[Picture], Field(min_length=1)]] = []
    """Recorded samples: the frames of each, or in a tensor body its one name."""


class WireText(Strict):
    """One written answer."""

    kind: Literal["text"]
    prompt: WirePrompt
    text: str
    num_tokens: int = Field(default=0, ge=0)
    finished: bool = True
    confidence: float | None = Field(default=None, ge=0, le=1)


class WireVideo(Strict):
    """One video as 8-bit frames; an image is a video of one frame."""

    kind: Literal["video"]
    prompt: WirePrompt
    fps: float = Field(default=8.0, gt=0)
    frames: list[Picture] = Field(min_length=1)


class TensorVideo(Strict):
    """One video as a tensor (F, 3, H, W): uint8, or float32 in [0, 1]."""

    kind: Literal["video"]
    prompt: WirePrompt
    fps: float = Field(default=8.0, gt=0)
    video: Key


class ScoreRequest(Strict):
    """Samples to score, pictures as PNG."""

    version: Literal[1]
    scorer: str
    samples: list[Annotated[WireText | WireVideo, Field(discriminator="kind")]]


class TensorRequest(Strict):
    """Samples to score, pictures as tensors of the same body; `images` are their names."""

    version: Literal[1]
    scorer: str
    samples: list[Annotated[WireText | TensorVideo, Field(discriminator="kind")]]


class ScoreResponse(BaseModel):
    """One score a sample, in the order of the request; null where there is none."""

    version: Literal[1] = 1
    scorer: str
    scores: list[float | None]
    statuses: list[str]
    """"ok", or why there is no score: abstained, error, timeout, unavailable."""
    reason: str = ""
    """The last failure's own words."""


def to_tensors(request: ScoreRequest) -> tuple[TensorRequest, dict[str, np.ndarray]]:
    """The same request with every PNG unpacked; WireError names what is no PNG."""
    arrays: dict[str, np.ndarray] = {}
    budget = [MAX_PIXELS]

    def keep(pixels: np.ndarray) -> str:
        arrays[str(len(arrays))] = pixels
        return str(len(arrays) - 1)

    samples = []
    for index, sample in enumerate(request.samples):
        tree = sample.model_dump()
        where = f"samples[{index}]"
        tree["prompt"]["images"] = [
            keep(read_png(text, f"{where}.prompt.images[{i}]", budget))
            for i, text in enumerate(sample.prompt.images)
        ]
        tree["prompt"]["videos"] = [
            [keep(_clip(frames, f"{where}.prompt.videos[{i}]", budget))]
            for i, frames in enumerate(sample.prompt.videos)
        ]
        if isinstance(sample, WireVideo):
            tree["video"] = keep(_clip(tree.pop("frames"), f"{where}.frames", budget))
        samples.append(tree)
    plain = {"version": VERSION, "scorer": request.scorer, "samples": samples}
    return TensorRequest.model_validate(plain), arrays


def _clip(pictures: Sequence[str], where: str, budget: list[int]) -> np.ndarray:
    """(F, 3, H, W) uint8 of frames as PNG."""
    frames = [read_png(text, f"{where}[{i}]", budget) for i, text in enumerate(pictures)]
    if len({frame.shape for frame in frames}) > 1:
        raise WireError(f"{where}: frames differ in size")
    return np.stack(frames).transpose(0, 3, 1, 2)


def read_png(text: str, where: str, budget: list[int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 of a PNG in base64; `budget[0]` pixels are left for all of them."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as png:
            pixels = png.width * png.height
            if budget is not None:
                budget[0] -= pixels
            if pixels > MAX_PIXELS or (budget is not None and budget[0] < 0):
                raise WireError(f"{where}: more than {MAX_PIXELS} pixels in one request")
            return np.asarray(as_rgb(png))
    except WireError:
        raise
    except DeepImageError as error:
        raise WireError(f"{where}: {error}") from error
    except (binascii.Error, ValueError) as error:
        message = f"{where}: not base64 of a PNG; pictures travel by content, paths are not read"
        raise WireError(message) from error
    except Exception as error:
        raise WireError(f"{where}: not a sound PNG: {type(error).__name__}") from error


def write_png(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a PNG in base64, lossless."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", compress_level=1)
    return base64.b64encode(sink.getvalue()).decode("ascii")


def pack(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """A safetensors file of the arrays whose metadata holds `header` as JSON."""
    metadata = {"header": json.dumps(header, allow_nan=False)}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, metadata=metadata)


def unpack(body: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Header and arrays of `pack`; WireError for anything else."""
    try:
        (length,) = struct.unpack("<Q", body[:8])
        metadata = json.loads(body[8 : 8 + length])["__metadata__"]
        return json.loads(metadata["header"]), load(body)
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"not a safetensors body with a header: {type(error).__name__}") from error
    except (SafetensorError, OverflowError, MemoryError) as error:
        raise WireError(f"not a sound safetensors body: {error}") from error


def check_tensors(request: TensorRequest, arrays: Arrays) -> None:
    """WireError unless every tensor that is named is there, of its shape and in its range."""
    for index, sample in enumerate(request.samples):
        where = f"samples[{index}]"
        for name in sample.prompt.images:
            _check(arrays, name, f"{where}.prompt.images", (None, None, 3), floats=False)
        for names in sample.prompt.videos:
            if len(names) != 1:
                raise WireError(f"{where}.prompt.videos: one name a video, got {len(names)}")
            _check(arrays, names[0], f"{where}.prompt.videos", (None, 3, None, None), floats=False)
        if isinstance(sample, TensorVideo):
            _check(arrays, sample.video, f"{where}.video", (None, 3, None, None), floats=True)


def _check(
    arrays: Arrays, name: str, where: str, shape: Sequence[int | None], *, floats: bool
) -> None:
    array = arrays.get(name)
    if array is None:
        raise WireError(f"{where}: the body holds no tensor named {name!r}")
    fits = len(array.shape) == len(shape) and all(
        size > 0 and want in (None, size) for size, want in zip(array.shape, shape, strict=True)
    )
    kinds = ("uint8", "float32") if floats else ("uint8",)
    if not fits or array.dtype.name not in kinds:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise WireError(
            f"{where}: expected ({wanted}) of {' or '.join(kinds)}, "
            f"got {array.shape} of {array.dtype.name}"
        )
    if array.dtype.name == "float32" and not ((array >= 0) & (array <= 1)).all():
        raise WireError(f"{where}: values outside [0, 1]")
