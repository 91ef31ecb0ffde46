"""Videos in and out: colours, order and values survive; broken files are named."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from mmrl.data.prompts import DataError
from mmrl.data.video import (
    encode_webp,
    quantize,
    read_video,
    to_uint8,
    uniform_indices,
    video_fps,
    write_mp4,
)


def moving_square(frames: int = 6, side: int = 64) -> torch.Tensor:
    """A red square that moves right over a dark ground with a blue bottom."""
    video = torch.full((frames, 3, side, side), 0.1)
    video[:, 2, side // 2 :] = 0.8
    for frame in range(frames):
        video[frame, 0, 8:24, 8 * frame : 8 * frame + 16] = 1.0
    return video


def test_uniform_indices_are_the_centres_of_equal_segments():
    assert uniform_indices(8, 4) == [0, 2, 4, 6]
    assert uniform_indices(9, 3) == [1, 4, 7]
    assert uniform_indices(10, 1) == [4]
    assert uniform_indices(3, 8) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least one frame"):
        uniform_indices(0, 4)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_picked_frames_rise_and_lie_inside(count: int):
    for frames in range(1, 40):
        picked = uniform_indices(frames, count)
        assert picked == sorted(set(picked))
        assert len(picked) == min(frames, count)
        assert 0 <= picked[0] <= picked[-1] < frames


def test_quantizing_rounds_and_clamps():
    levels = torch.tensor([0.49, 0.51, 1.6, 127.5, 254.6, 300.0, -3.0]) / 255
    video = levels.double()[:, None, None, None].expand(-1, 3, 1, 1)
    assert quantize(video)[:, 0, 0, 0].tolist() == [0, 1, 2, 128, 255, 255, 0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite_are_never_written_as_a_colour(value: float):
    video = torch.rand(2, 3, 4, 4)
    video[1, 2, 3, 3] = value
    for use in (quantize, to_uint8, lambda v: encode_webp(v, fps=8)):
        with pytest.raises(ValueError, match="not finite"):
            use(video)


def test_a_webp_gives_back_every_level_exactly(tmp_path: Path):
    video = torch.randint(0, 256, (5, 3, 12, 10)).float() / 255
    path = tmp_path / "a.webp"
    path.write_bytes(encode_webp(video, fps=8))
    assert torch.equal(read_video(path), video)


def clear_square(frames: int) -> list[Image.Image]:
    """A red square on nothing, moving right."""
    found = []
    for frame in range(frames):
        picture = Image.new("RGBA", (16, 8))
        picture.paste((255, 0, 0, 255), (4 * frame, 2, 4 * frame + 4, 6))
        found.append(picture)
    return found


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.png"])
def test_what_is_transparent_is_white_in_every_frame(tmp_path: Path, name: str):
    first, *rest = clear_square(3)
    whole = {"lossless": True, "kmax": 1}  # other frames than key frames lose their alpha
    more = whole if name.endswith("webp") else {}
    path = tmp_path / name
    first.save(path, save_all=True, append_images=rest, duration=100, disposal=2, **more)
    video = read_video(path)
    assert video.shape == (3, 3, 8, 16)
    for frame, picture in enumerate(video):
        assert picture[:, 0, 0].tolist() == picture[:, 7, 15].tolist() == [1, 1, 1]
        assert picture[:, 3, 4 * frame + 1].tolist() == [1, 0, 0]


def test_a_picture_as_a_video_is_upright_and_of_8_bits_or_refused(tmp_path: Path):
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying, shown turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    video = read_video(tmp_path / "turned.png")
    assert video.shape == (1, 3, 4, 2) and video[0, :, 0, 1].tolist() == [1, 1, 1]
    Image.fromarray(np.full((2, 2), 4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png cannot be read: .*window it to 8 bits"):
        read_video(tmp_path / "deep.png")


def test_enlarging_repeats_pixels_and_a_large_video_shrinks():
    tiny = torch.rand(2, 3, 4, 6)
    with Image.open(io.BytesIO(encode_webp(tiny, fps=8, scale=3))) as image:
        assert image.size == (18, 12)
        large = torch.tensor(list(image.convert("RGB").tobytes())).view(12, 18, 3)
    assert torch.equal(large[1::3, 1::3], quantize(tiny)[0].long())
    assert torch.equal(large[::3, ::3], large[2::3, 2::3])
    with Image.open(io.BytesIO(encode_webp(torch.rand(2, 3, 480, 832), fps=8, scale=4))) as image:
        assert image.size == (320, 185)


def test_a_webp_plays_at_its_rate():
    with Image.open(io.BytesIO(encode_webp(moving_square(), fps=8))) as image:
        image.seek(1)
        image.load()
        assert image.info["duration"] == 125


@pytest.mark.parametrize("side", [64, 16])
def test_an_mp4_comes_back_in_order_and_in_its_colours(tmp_path: Path, side: int):
    video = moving_square(4, side) if side == 64 else moving_square(1, 64)[:, :, ::4, ::4]
    path = tmp_path / "a.mp4"
    write_mp4(path, video, fps=8.0)
    back = read_video(path)
    assert back.shape == video.shape
    assert 0 <= back.min() <= back.max() <= 1
    assert (back - video).abs().mean() < 0.03


def lying(path: Path, video: torch.Tensor, degrees: int) -> None:
    """An mp4 as a phone records it: frames as they are, and a matrix that turns them leftwards."""
    write_mp4(path.with_stem("stored"), video, fps=8)
    turn = ["-display_rotation", str(degrees), "-i", str(path.with_stem("stored"))]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *turn, "-c", "copy", str(path)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("size", [(64, 128), (48, 96)], ids=["decord", "ffmpeg"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_display_matrix_of_a_phone_s_video_turns_it_upright(
    tmp_path: Path, degrees: int, size: tuple[int, int]
) -> None:
    """Both readers: decord's own, and ffmpeg's for narrow frames. Picked frames are turned too."""
    video = torch.zeros(4, 3, *size)
    video[:, 0, : size[0] // 2, : size[1] // 2] = 1
    video[:, 1, : size[0] // 2, size[1] // 2 :] = 1
    video[2:, 2, size[0] // 2 :] = 1
    path = tmp_path / "phone.mp4"
    lying(path, video, degrees)
    upright = torch.rot90(video, degrees // 90, (2, 3))
    assert read_video(path).shape == upright.shape
    assert (read_video(path) - upright).abs().mean() < 0.03
    assert (read_video(path, 2) - upright[uniform_indices(4, 2)]).abs().mean() < 0.03
    assert video_fps(path) == 8


def test_red_stays_red_through_files(tmp_path: Path):
    red = torch.zeros(4, 3, 64, 64)
    red[:, 0] = 1
    write_mp4(tmp_path / "red.mp4", red, fps=8)
    (tmp_path / "red.webp").write_bytes(encode_webp(red, fps=8))
    for name in ("red.mp4", "red.webp"):
        colour = read_video(tmp_path / name).mean((0, 2, 3))
        assert colour[0] > 0.95, name
        assert colour[1:].max() < 0.05, name


def test_asking_for_fewer_frames_gives_the_picked_ones(tmp_path: Path):
    (tmp_path / "a.webp").write_bytes(encode_webp(moving_square(), fps=8))
    write_mp4(tmp_path / "a.mp4", moving_square(), fps=8)
    for path in (tmp_path / "a.webp", tmp_path / "a.mp4"):
        assert torch.equal(read_video(path, 3), read_video(path)[uniform_indices(6, 3)])


def test_odd_sides_are_refused_for_mp4(tmp_path: Path):
    with pytest.raises(ValueError, match=r"sides must be even .* got 31x64"):
        write_mp4(tmp_path / "a.mp4", torch.zeros(2, 3, 31, 64), fps=8)


@pytest.mark.parametrize("name", ["a.mp4", "a.webp", "a.gif"])
@pytest.mark.parametrize("kept", [0, 40, 300])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: int):
    path = tmp_path / name
    if name == "a.mp4":
        write_mp4(path, torch.rand(8, 3, 64, 64), fps=8)
    elif name == "a.webp":
        path.write_bytes(encode_webp(torch.rand(8, 3, 64, 64), fps=8))
    else:
        frames = [Image.fromarray(f) for f in quantize(torch.rand(8, 3, 64, 64)).numpy()]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_video(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=re.escape("gone.mp4")):
        read_video(tmp_path / "gone.mp4")
