"""One update of Wan2.1-1.3B on a GPU: `python -m benchmarks.gpu_video [--tiny] [KEY=VALUE ...]`.

The run of configs/sage_grpo/wan2_1_1_3b.yaml (LoRA, bfloat16, gradient checkpointing, guidance, two
anchors) at 480 x 832 and the most frames that fit, with the real networks' shapes and random
weights; the text encoder is one layer, as texts are encoded once. One prompt, G = 2, two of ten
denoising steps trained; what they cost does not depend on their number. KEY=VALUE changes the
config as with `mmrl train`; LoRA on other layers is not what the FLOPs count.

Prints JSON lines (machine, rates, a line a size), then the table of docs/performance.md. MFU is
model FLOPs (benchmarks/flops.py) by the measured rate of a matrix product; HFU counts what
gradient checkpointing runs again too. The weights lie in a temporary folder of 6 GB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.flops import Flops, WanShape, backward_flops, forward_flops, remade_flops
from benchmarks.gpu import (
    Lap,
    Stopwatch,
    attention_rate,
    device_here,
    first_that_fits,
    gib,
    machine,
    matrix_rate,
    timed_steps,
    told,
)
from benchmarks.gpu_video_model import FULL, REWARD, TINY, Case, config_of, write_model
from mmrl.doctor import estimate
from mmrl.doctor.items import PHASES, Estimate
from mmrl.models.pipeline import denoiser_tokens
from mmrl.policies.video import VideoPolicy
from mmrl.train.loop import initial_state
from mmrl.train.ranks import Ranks
from mmrl.types import FIRST_TURN
from mmrl.video_recipe import VideoPipelineConfig

PROMPT = "a red three moving right"
WATCHED = ("ratio/deviation", "rollout/log_prob_gap", "grad_norm", "reward/mean", "reward/std")


def main() -> None:
    """Measure the largest size that fits, a JSON line at a time, then print the table."""
    parser = argparse.ArgumentParser(description="Time one update of Wan2.1-1.3B.")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the config")
    arguments = parser.parse_args()
    device = device_here(tiny=arguments.tiny)
    lines = []
    for line in run(TINY if arguments.tiny else FULL, device, arguments.changes):
        print(json.dumps(line), flush=True)
        lines.append(line)
    print(table(lines))


def run(case: Case, device: torch.device, changes: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Machine, sizes that do not fit, and the first that does."""
    yield machine(device, torch.bfloat16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", case, device)
        (folder / "prompts.jsonl").write_text(json.dumps({"text": PROMPT}) + "\n", "utf-8")
        watches = {frames: Stopwatch(device) for frames in case.frames}

        def at(frames: int) -> dict[str, Any]:
            return measure(case, folder, frames, watches[frames], changes)

        for frames, found in first_that_fits(case.frames, at):
            where = watches[frames].running or "loading"
            yield found or {"frames": frames, "out_of_memory": where}


def measure(
    case: Case, folder: Path, frames: int, watch: Stopwatch, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Seconds, peak memory and FLOPs of every phase of a training step, and the device's rates."""
    config = config_of(case, folder, frames, changes)
    torch.manual_seed(config.train.seed)
    recipe = config.build()
    policy = recipe.policy
    assert isinstance(policy, VideoPolicy)
    policy.to(watch.device)
    state = initial_state(recipe, config.train)
    watch.follow(policy, "decode", during="decode", after="rollout")
    ranks = Ranks(Accelerator(cpu=watch.device.type == "cpu"))
    lap, metrics = timed_steps(recipe, state, config.train, ranks, watch, case.repeats)
    shape = shape_of(policy, config)
    return {
        "frames": frames,
        "height": case.height,
        "width": case.width,
        "tokens": shape.tokens,
        "group_size": config.group_size,
        "steps": policy.sampling.num_steps,
        "trained_steps": trained_steps(policy),
        "parameters": sum(p.numel() for p in policy.module.parameters()),
        "first_step": {name: metrics[0][name] for name in WATCHED},
        "rates": rates(case, shape, policy, watch.device),
        "phases": phases(lap, estimate(config), work(shape, policy, config)),
    }


def shape_of(policy: VideoPolicy, config: VideoPipelineConfig) -> WanShape:
    """What the FLOPs of the policy's transformer depend on."""
    assert config.lora is not None
    network = dict(policy.module.config)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return WanShape.of(
        network,
        tokens=denoiser_tokens(policy.model.latent_shape, network),
        texts=config.video.max_sequence_length,
        rank=config.lora.rank,
    )


def trained_steps(policy: VideoPolicy) -> int:
    """How many steps of a rollout are trained."""
    return len(policy.plan(FIRST_TURN).trained_steps())


def rates(
    case: Case, shape: WanShape, policy: VideoPolicy, device: torch.device
) -> dict[str, float]:
    """FLOP a second of a matrix product, and of attention at the model's size."""
    heads = int(policy.module.config.num_attention_heads)  # pyright: ignore
    attend = partial(
        attention_rate, heads, shape.tokens, shape.width // heads, torch.bfloat16, device
    )
    return {
        "matrix": matrix_rate(case.matrix, torch.bfloat16, device),
        "attention": attend(backward=False),
        "attention, both ways": attend(backward=True),
    }


def work(
    shape: WanShape, policy: VideoPolicy, config: VideoPipelineConfig
) -> dict[str, tuple[Flops, Flops]]:
    """By phase the model FLOPs, and what is run again beside them.

    A trained step is one pass with gradients, and one without for every anchor.
    """
    videos = config.train.prompts_per_step * config.group_size
    rows = videos * (1 if policy.sampling.guidance == 1 else 2)
    forward, nothing = forward_flops(shape), Flops(0, 0)
    replay = forward * (1 + len(config.trust_region.anchors())) + backward_flops(shape)
    again = remade_flops(shape) if config.gradient_checkpointing else nothing
    replays = rows * trained_steps(policy)
    return {
        "rollout": (forward * (rows * policy.sampling.num_steps), nothing),
        "update": (replay * replays, again * replays),
    }


def phases(
    lap: Lap, expected: Estimate, done: Mapping[str, tuple[Flops, Flops]]
) -> dict[str, dict[str, Any]]:
    """What was measured, estimated and computed in every phase."""
    found = {}
    for name in PHASES:
        phase, (model, again) = lap[name], done.get(name, (None, None))
        found[name] = {
            "seconds": phase.seconds,
            "peak_bytes": phase.peak,
            "estimated_bytes": expected.total(name),
            "model_flops": model and asdict(model),
            "flops_run_again": again and asdict(again),
        }
    return found


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The last line's size for docs/performance.md, a row a phase."""
    on, *sizes = lines
    *larger, size = sizes
    if "phases" not in size:
        return f"{told(on)}: no size fits"
    rate = size["rates"]
    units = {
        "rollout": ("a denoising step", "steps"),
        "update": ("a trained step", "trained_steps"),
    }
    rows = []
    for name, phase in size["phases"].items():
        unit, count = units.get(name, (f"{size['group_size']} videos", None))
        rows.append(row(f"{name}, {unit}", phase, size[count] if count else 1, rate["matrix"]))
    about = [
        told(on),
        f"Wan2.1 shapes of {size['parameters'] / 1e6:,.1f} M parameters with LoRA",
        f"{size['frames']} frames of {size['height']} x {size['width']}, {size['tokens']:,} tokens",
        f"G = {size['group_size']}, reward `{REWARD}`",
        *(f"{name} {value / 1e12:,.3g} TFLOP/s" for name, value in rate.items()),
        *(f"{one['frames']} frames ran out of memory in {one['out_of_memory']}" for one in larger),
    ]
    head = "| | seconds | peak GiB | estimated GiB | model TFLOP | model TFLOP/s | MFU | HFU |"
    return "\n".join(["; ".join(about), "", head, "|---" * 8 + "|", *rows])


def row(name: str, phase: Mapping[str, Any], count: int, rate: float) -> str:
    """One phase as a line, seconds and FLOPs by its unit."""
    cells = [
        name,
        f"{phase['seconds'] / count:.3g}",
        gib(phase["peak_bytes"]),
        gib(phase["estimated_bytes"]),
    ]
    if phase["model_flops"] is None:
        return f"| {' | '.join([*cells, '', '', '', ''])} |"
    model, again = (Flops(**phase[key]).total for key in ("model_flops", "flops_run_again"))
    speed = model / phase["seconds"]
    more = (model + again) / phase["seconds"]
    cells += [f"{model / count / 1e12:.4g}", f"{speed / 1e12:.3g}"]
    return f"| {' | '.join([*cells, f'{speed / rate:.1%}', f'{more / rate:.1%}'])} |"


if __name__ == "__main__":
    main()
