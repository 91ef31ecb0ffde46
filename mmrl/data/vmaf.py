"""VMAF of a video against its reference, by the libvmaf inside the ffmpeg of imageio-ffmpeg."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from mmrl.data.video import quantize

MODEL = "vmaf_v0.6.1"
"""What libvmaf takes without being told."""


def vmaf(video: Float[Tensor, "F 3 H W"], reference: Float[Tensor, "R 3 RH RW"]) -> float:
    """Mean over frames, 0 to 100; frame i is compared with frame i.

    ValueError where the two differ in frames or size, or where ffmpeg says no.
    """
    if video.shape != reference.shape:
        raise ValueError(
            f"VMAF compares frame by frame: the video is {tuple(video.shape)}, its reference "
            f"{tuple(reference.shape)}"
        )
    height, width = video.shape[-2:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, frames in (("video", video), ("reference", reference)):
            with (folder / name).open("wb") as file:
                for frame in frames:
                    file.write(quantize(frame[None]).numpy().tobytes())
        form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        _ffmpeg(folder, [*form, "-i", "video", *form, "-i", "reference"])
        told = json.loads((folder / "log.json").read_text("utf-8"))
    return float(told["pooled_metrics"]["vmaf"]["mean"])


def _ffmpeg(folder: Path, inputs: list[str]) -> None:
    """Both inputs as yuv444p, which keeps the luma that VMAF reads whole."""
    import imageio_ffmpeg

    compare = (
        "[0:v]format=yuv444p[a];[1:v]format=yuv444p[b];"
        "[a][b]libvmaf=log_fmt=json:log_path=log.json:n_threads=1"
    )
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, "-lavfi", compare]
    done = subprocess.run(
        [*command, "-f", "null", "-"], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise ValueError(f"ffmpeg could not compute VMAF: {lines[-1]}")
