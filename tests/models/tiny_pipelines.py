"""Video pipelines of every family, small and with random weights, and how each is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ClassifierFreeGuidance, DiffusionPipeline
from einops import rearrange
from PIL import Image
from torch import Tensor

from mmrl.policies.video_model import VideoSize
from tests.models.tiny_builders import cogvideox, hunyuan_video, hunyuan_video15, ltx
from tests.models.tiny_ltx2 import guided_alike, ltx2, state_of, streams
from tests.models.tiny_wan import wan21_i2v, wan22_5b, wan22_a14b

STEPS = 4
"""Divides 1000, or CogVideoX's own scheduler steps to other levels than it goes on from."""
FIRST_FRAME = "first_frame.png"
Call = dict[str, object]


@dataclass(frozen=True)
class Family:
    """One adapter's tiny pipeline."""

    build: Callable[[], DiffusionPipeline]
    size: VideoSize
    lora: tuple[str, ...]
    prepare: Callable[[DiffusionPipeline, float], Call]
    """Arguments of the pipeline's own call for a guidance, and what must be set on it before."""
    given: Callable[[Tensor], Mapping[str, Tensor]] = lambda state: {"latents": state}
    """The first state as arguments of the call."""
    found: Callable[[Any], Tensor] = lambda output: output.frames
    """The last state out of what the call returns."""
    guidances: tuple[float, ...] = (1.0, 3.0)
    flow: bool = True
    image: bool = False
    """Whether videos start from an image."""
    load_lora: Callable[[DiffusionPipeline, Path], None] = lambda pipeline, folder: (
        pipeline.load_lora_weights(folder)
    )


def guided_by_guider(pipeline: DiffusionPipeline, guidance: float) -> Call:
    pipeline.guider = ClassifierFreeGuidance(guidance_scale=guidance)
    pipeline.tokenizer_max_length = 8
    return {}


def frames_first(state: Tensor) -> dict[str, Tensor]:
    return {"latents": state.transpose(1, 2)}


def guided_at_length(length: int) -> Callable[[DiffusionPipeline, float], Call]:
    """Guidance and the text's length as arguments of the call."""
    return lambda _, guidance: {"guidance_scale": guidance, "max_sequence_length": length}


def load_both_experts(pipeline: DiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(folder)
    pipeline.load_lora_weights(folder / "transformer_2", load_into_transformer_2=True)


def guided_twice(pipeline: DiffusionPipeline, guidance: float) -> Call:
    """The policy's guidance beside the embedded one."""
    return {"true_cfg_scale": guidance, "guidance_scale": 6.0, "max_sequence_length": 8}


def packed(state: Tensor) -> dict[str, Tensor]:
    return {"latents": rearrange(state, "b c f h w -> b (f h w) c")}


def unpacked(output) -> Tensor:
    """Of latents two rows high and two columns wide."""
    return rearrange(output.frames, "b (f h w) c -> b c f h w", h=2, w=2)


COGVIDEOX = Family(
    cogvideox,
    VideoSize(num_frames=9, height=32, width=16, max_sequence_length=8),
    ("to_q", "to_out.0"),
    guided_at_length(8),
    given=frames_first,
    found=lambda output: output.frames.transpose(1, 2),
    flow=False,
)
WAN22_5B = Family(
    wan22_5b,
    VideoSize(num_frames=5, height=16, width=16, max_sequence_length=8),
    ("attn1.to_q", "attn2.to_out.0"),
    guided_at_length(8),
)
WAN22_A14B = replace(
    WAN22_5B,
    build=wan22_a14b,
    load_lora=load_both_experts,
)
I2V = "WanImageToVideoPipeline"
FAMILIES = {
    "cogvideox": COGVIDEOX,
    "cogvideox15": replace(COGVIDEOX, build=partial(cogvideox, patch_size_t=2)),
    "hunyuan_video15": Family(
        hunyuan_video15,
        VideoSize(num_frames=5, height=16, width=16, max_sequence_length=8),
        ("to_q", "add_q_proj", "to_out.0"),
        guided_by_guider,
        load_lora=lambda pipeline, folder: pipeline.transformer.load_lora_adapter(
            folder, prefix=None, use_safetensors=True
        ),
    ),
}


FAMILIES |= {
    "hunyuan_video": Family(
        hunyuan_video,
        VideoSize(num_frames=5, height=32, width=16, max_sequence_length=8),
        ("to_q", "add_q_proj", "to_out.0"),
        guided_twice,
    ),
    "ltx": Family(
        ltx,
        VideoSize(num_frames=5, height=32, width=32, max_sequence_length=8),
        ("to_q", "to_out.0"),
        guided_at_length(8),
        given=packed,
        found=unpacked,
    ),
    "ltx2": Family(
        ltx2,
        VideoSize(num_frames=5, height=32, width=32, max_sequence_length=8),
        ("to_q", "to_out.0"),
        guided_alike,
        given=streams,
        found=state_of,
    ),
    "wan22_5b": WAN22_5B,
    "wan22_5b_i2v": replace(WAN22_5B, build=partial(wan22_5b, I2V), image=True),
    "wan22_a14b": WAN22_A14B,
    "wan22_a14b_i2v": replace(WAN22_A14B, build=partial(wan22_a14b, I2V, 10), image=True),
    "wan21_i2v": replace(
        WAN22_A14B,
        build=wan21_i2v,
        size=replace(WAN22_5B.size, max_sequence_length=512),
        prepare=guided_at_length(512),
        load_lora=WAN22_5B.load_lora,
        image=True,
    ),
}


def save(family: Family, folder: Path) -> Path:
    """The family's pipeline as a folder, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = family.build()
    pipeline.save_pretrained(folder, safe_serialization=True)
    ramp = torch.arange(20 * 12 * 3, dtype=torch.uint8).view(12, 20, 3)
    Image.fromarray(ramp.numpy()).save(folder / FIRST_FRAME)
    return folder


def first_frame(folder: Path) -> Path:
    """A picture to start from, of another shape than the videos."""
    return folder / FIRST_FRAME


@cache
@torch.no_grad()
def own_call(
    family: Family, folder: Path, prompt: str, noise: Tensor, *, guidance: float, output: str
) -> Tensor:
    """Latents in our layout (`latent`), or a video `F 3 H W` (`pt`), of the pipeline's own loop."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    size = family.size
    found = pipeline(
        prompt=prompt,
        negative_prompt="",
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=STEPS,
        **family.given(noise),
        output_type=output,
        **family.prepare(pipeline, guidance),
        **({"image": Image.open(first_frame(folder))} if family.image else {}),
    )
    return family.found(found) if output == "latent" else found.frames[0]
