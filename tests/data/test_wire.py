"""Samples survive the wire: PNG to the level, float32 to the bit."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmrl.data.video import read_video, write_mp4
from mmrl.data.wire import (
    ScoreRequest,
    TensorRequest,
    WireError,
    check_tensors,
    pack,
    read_png,
    to_tensors,
    unpack,
)
from mmrl.data.wire_samples import png_request, read_samples, tensor_request
from mmrl.types import Prompt, Sample, TextSample, VideoSample


def through_png(samples: list[Sample], folder: Path) -> list[Sample]:
    request = ScoreRequest.model_validate(png_request("any", samples))
    return read_samples(*to_tensors(request), folder)


def through_tensors(samples: list[Sample], folder: Path) -> list[Sample]:
    header, arrays = unpack(tensor_request("any", samples))
    return read_samples(TensorRequest.model_validate(header), arrays, folder)


def test_an_answer_arrives_as_it_was(tmp_path: Path) -> None:
    prompt = Prompt('"é" \u4e2d\n{}%', answer="A", metadata={"a": 1, "b": 0.1, "c": "x"})
    sample = TextSample(
        prompt, "<think>\u0000</think>", num_tokens=7, finished=False, confidence=0.25
    )
    assert through_png([sample], tmp_path) == [sample]
    assert through_tensors([sample], tmp_path) == [sample]


def test_a_video_of_8_bit_levels_arrives_to_the_bit(tmp_path: Path) -> None:
    levels = torch.arange(256).repeat(3, 1).view(1, 3, 16, 16) / 255
    video = torch.cat([levels, levels.flip(-1), levels.flip(-2)])
    (found,) = through_png([VideoSample(Prompt("q"), video, fps=7.5)], tmp_path)
    assert isinstance(found, VideoSample)
    assert found.video.equal(video) and found.fps == 7.5


def test_tensors_round_nothing_and_png_rounds_to_the_nearest_level(tmp_path: Path) -> None:
    video = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    sample = VideoSample(Prompt("q"), video)
    (exact,), (rounded,) = through_tensors([sample], tmp_path), through_png([sample], tmp_path)
    assert isinstance(exact, VideoSample) and isinstance(rounded, VideoSample)
    assert exact.video.equal(video)
    assert (rounded.video - video).abs().max() <= 0.5 / 255 + 1e-7


def test_a_picture_of_the_prompt_arrives_as_a_file_with_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "there.png"
    Image.effect_noise((9, 6), 80).convert("RGB").save(path)
    (tmp_path / "here").mkdir()
    for through in (through_png, through_tensors):
        (found,) = through([TextSample(Prompt("q", images=(path,)), "x")], tmp_path / "here")
        with Image.open(found.prompt.images[0]) as there, Image.open(path) as here:
            assert there.tobytes() == here.tobytes()


def test_a_recorded_video_of_the_prompt_arrives_frame_by_frame(tmp_path: Path) -> None:
    """Two equal frames stay two; a name of the client never becomes a path."""
    still = torch.randint(0, 256, (1, 3, 6, 8)).float() / 255
    video = torch.cat([still, still, torch.randint(0, 256, (2, 3, 6, 8)).float() / 255])
    path = tmp_path / "preferred.mp4"
    write_mp4(path, video, fps=8)
    recorded = read_video(path)
    assert len(recorded) == 4
    (tmp_path / "here").mkdir()
    asked = Prompt("q", videos=(path, path))
    for through in (through_png, through_tensors):
        (found,) = through([VideoSample(asked, video)], tmp_path / "here")
        assert len(found.prompt.videos) == 2
        assert all(read_video(one).equal(recorded) for one in found.prompt.videos)
        assert all(one.parent == tmp_path / "here" for one in found.prompt.videos)


def test_a_prompts_video_in_a_tensor_body_is_one_tensor_that_is_there() -> None:
    header = json.loads(json.dumps(png_request("any", [TextSample(Prompt("q"), "x")])))
    for names, reason in (([["a", "b"]], "one name a video, got 2"), ([["a"]], "no tensor named")):
        header["samples"][0]["prompt"]["videos"] = names
        with pytest.raises(WireError, match=reason):
            check_tensors(TensorRequest.model_validate(header), {})


def base64_png(image: Image.Image, **fields: Any) -> str:
    sink = io.BytesIO()
    image.save(sink, "PNG", **fields)
    return base64.b64encode(sink.getvalue()).decode()


def test_a_png_of_another_client_is_read_by_the_rules_of_pictures() -> None:
    """Transparent is white, an EXIF tag turns, 16 bits are refused: never cut off at 255."""
    assert (read_png(base64_png(Image.new("RGBA", (2, 2))), "x") == 255).all()
    lying = Image.new("RGB", (4, 2))
    exif = lying.getexif()
    exif[0x0112] = 6
    assert read_png(base64_png(lying, exif=exif), "x").shape == (4, 2, 3)
    deep = Image.fromarray(np.full((2, 2), 4000, dtype=np.uint16))
    with pytest.raises(WireError, match=r"frames: mode I;16.*window it to 8 bits"):
        read_png(base64_png(deep), "frames")


def test_the_pixels_of_one_request_are_bounded_over_all_its_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmrl.data.wire.MAX_PIXELS", 40)
    video = VideoSample(Prompt("q"), torch.zeros(3, 3, 4, 4))
    request = ScoreRequest.model_validate(png_request("any", [video]))
    with pytest.raises(WireError, match=r"samples\[0\]\.frames\[2\]: more than 40 pixels"):
        to_tensors(request)


def test_a_header_comes_back_with_its_tensors() -> None:
    array = torch.arange(6, dtype=torch.float32).view(2, 3).T.numpy()
    header, arrays = unpack(pack({"a": [1, None]}, {"x": array}))
    assert header == {"a": [1, None]}
    assert (arrays["x"] == array).all()
