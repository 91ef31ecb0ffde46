"""A GRPO step of Qwen2.5-VL-3B on a GPU: `python -m benchmarks.gpu_vlm [--trl] [--tiny]`.

The real network's shapes with random weights, bfloat16, LoRA; one prompt with a picture of 1,024
image tokens, G = 8 answers of 512 tokens, none of which ends early (`KEY=VALUE` changes the
config). Three ways to do it: the pipeline `grpo`, where the answers of a group share picture and
prompt; the same code with a prefix of its own for every answer; and with `--trl` TRL's GRPOTrainer
(`pip install trl`). A step is sampling, rewards, replay, backward pass and AdamW.

Prints JSON lines (machine, a line a way), then the table of docs/performance.md. The weights lie in
a temporary folder of 8 GB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks import vlm_peer
from benchmarks.gpu import (
    Lap,
    Stopwatch,
    device_here,
    gib,
    machine,
    or_none,
    timed_steps,
    told,
    typical,
)
from benchmarks.gpu_vlm_model import (
    END,
    FULL,
    QUESTION,
    TINY,
    Case,
    write_model,
    write_picture,
)
from mmrl.config import apply_overrides
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import VlmInputs
from mmrl.models.vlm_loader import load_vlm
from mmrl.policies.answers import Answers
from mmrl.policies.vlm import Draw, VlmPolicy
from mmrl.recipe import Recipe
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.types import Prompt
from mmrl.vlm_recipe import VlmPipelineConfig

WATCHED = ("ratio/deviation", "rollout/log_prob_gap", "grad_norm", "reward/mean")
WAYS = {
    "mmrl": "`mmrl`, shared prefix",
    "plain": "the same code, a prefix for every answer",
    "trl": "TRL `GRPOTrainer`",
}


class PlainModel(VlmModel):
    """A vision tower that runs whenever its prompt does."""

    def look(self, inputs: Sequence[VlmInputs]) -> list[VlmInputs]:
        """The prompts with their pixels: no features are kept."""
        return list(inputs)


class PlainPolicy(VlmPolicy):
    """Picture and prompt once for every answer, in rollout and in replay."""

    def _generate(self, inputs: Sequence[VlmInputs], group_size: int, draw: Draw) -> Answers:
        return super()._generate(each(inputs, group_size), 1, draw)

    def answer_log_probs(
        self,
        prompts: Sequence[VlmInputs],
        ids: Int[Tensor, "B T"],
        group_size: int,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """As of groups of one."""
        return super().answer_log_probs(each(prompts, group_size), ids, 1, lengths)


def each(inputs: Sequence[VlmInputs], times: int) -> list[VlmInputs]:
    """Every prompt `times` times, group-major."""
    return [one for one in inputs for _ in range(times)]


def main() -> None:
    """Measure every way, a JSON line at a time, then print the table."""
    parser = argparse.ArgumentParser(description="Time a GRPO step of Qwen2.5-VL-3B.")
    parser.add_argument("--trl", action="store_true", help="also TRL's GRPOTrainer")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the config")
    arguments = parser.parse_args()
    device = device_here(tiny=arguments.tiny)
    ways = ("mmrl", "plain", "trl") if arguments.trl else ("mmrl", "plain")
    lines = []
    for line in run(TINY if arguments.tiny else FULL, device, ways, arguments.changes):
        print(json.dumps(line), flush=True)
        lines.append(line)
    print(table(lines))


def run(
    case: Case, device: torch.device, ways: Sequence[str], changes: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The machine, then every way."""
    yield machine(device, torch.bfloat16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", case, device)
        write_prompt(folder, case)
        config = config_of(case, folder, changes)
        for way in ways:
            watch = Stopwatch(device)
            measure = measure_trl if way == "trl" else partial(measure_ours, plain=way == "plain")
            found = or_none(partial(measure, config, case, watch))
            where = watch.running or "loading"
            yield {"way": way, **(found or {"out_of_memory": where})}


def write_prompt(folder: Path, case: Case) -> None:
    """One picture with a question."""
    write_picture(folder / "noise.png", case.side)
    line = {"text": QUESTION, "images": [str(folder / "noise.png")]}
    (folder / "prompts.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def config_of(case: Case, folder: Path, changes: Sequence[str]) -> VlmPipelineConfig:
    """The pipeline `grpo` with LoRA on the text model's attention, and no anchor."""
    tree = {
        "pipeline": "grpo",
        "output": str(folder / "run"),
        "model": str(folder / "model"),
        "prompts": str(folder / "prompts.jsonl"),
        "precision": "bfloat16",
        "lora": {"rank": 32, "alpha": 64, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "group_size": case.group_size,
        "max_new_tokens": case.new_tokens,
        "rewards": {"varied": {"path": f"{vlm_peer.__file__}:varied"}},
        "train": {
            "steps": case.repeats + 1,
            "prompts_per_step": 1,
            "rows": case.group_size,
            "optimizer": {"lr": 1e-6},
        },
    }
    config = load_config(apply_overrides(tree, changes))
    assert isinstance(config, VlmPipelineConfig) and config.lora is not None
    return config


def measure_ours(
    config: VlmPipelineConfig, case: Case, watch: Stopwatch, *, plain: bool
) -> dict[str, Any]:
    """Training steps of the pipeline, with the policy as it is or the plain one."""
    torch.manual_seed(config.train.seed)
    recipe = with_plain_policy(config.build()) if plain else config.build()
    policy = recipe.policy
    assert isinstance(policy, VlmPolicy)
    policy.to(watch.device)
    state = initial_state(recipe, config.train)
    ranks = Ranks(Accelerator(cpu=watch.device.type == "cpu"))
    lap, metrics = timed_steps(recipe, state, config.train, ranks, watch, case.repeats)
    inputs = policy.model.inputs([recipe.prompts[0]], policy.prompt_template)[0]
    return {
        "parameters": sum(weight.numel() for weight in policy.module.parameters()),
        "image_tokens": int(inputs.types.sum()),
        "prompt_tokens": len(inputs.ids),
        "first_step": {name: metrics[0][name] for name in WATCHED},
        **spent(lap, config),
    }


def with_plain_policy(recipe: Recipe) -> Recipe:
    """The recipe with a policy that shares no prefix."""
    policy = recipe.policy
    assert isinstance(policy, VlmPolicy)
    model = PlainModel(policy.model.module, policy.model.processor, policy.model.family)
    known = {one.name: getattr(policy, one.name) for one in fields(policy) if one.init}
    return replace(recipe, policy=PlainPolicy(**{**known, "model": model}))


def measure_trl(config: VlmPipelineConfig, case: Case, watch: Stopwatch) -> dict[str, Any]:
    """Steps of GRPOTrainer with the same adapters; its update begins when generation ends."""
    from peft import LoraConfig as PeftLoraConfig

    assert config.lora is not None
    folder = Path(config.output).parent
    model = load_vlm(config.model, dtype=torch.bfloat16)
    model.tokenizer.eos_token = END
    watch.follow(model.module, "generate", during="rollout", after="update", begins_lap=True)
    vlm_peer.trl_seconds(
        model,
        Prompt(QUESTION, (folder / "noise.png",)),
        config.group_size,
        config.max_new_tokens,
        case.repeats,
        folder / "trl",
        peft_config=PeftLoraConfig(
            r=config.lora.rank,
            lora_alpha=int(config.lora.alpha),
            target_modules=list(config.lora.targets),
        ),
        settings={"bf16": True, "gradient_checkpointing": config.gradient_checkpointing},
    )
    watch.end_lap()
    return {"version": version("trl"), **spent(typical(watch.laps[2:]), config)}


def spent(lap: Lap, config: VlmPipelineConfig) -> dict[str, Any]:
    """Phases and tokens a second of a typical step."""
    tokens = config.train.prompts_per_step * config.group_size * config.max_new_tokens
    seconds = {name: phase.seconds for name, phase in lap.items()}
    whole = sum(seconds.values())
    return {
        "group_size": config.group_size,
        "new_tokens": config.max_new_tokens,
        "phases": {name: asdict(phase) for name, phase in lap.items()},
        "step_seconds": whole,
        "tokens_per_second": {
            "rollout": tokens / seconds["rollout"],
            "update": tokens / seconds["update"],
            "step": tokens / whole,
        },
    }


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row a way for docs/performance.md; a ratio is that of whole steps to the first way's."""
    on, *ways = lines
    first = ways[0]
    if "phases" not in first:
        return f"{told(on)}: ran out of memory in {first['out_of_memory']}"
    about = [
        told(on),
        f"Qwen2.5-VL shapes of {first['parameters'] / 1e6:,.1f} M parameters with LoRA",
        f"{first['image_tokens']} of {first['prompt_tokens']} prompt tokens are of the picture",
        f"G = {first['group_size']}, {first['new_tokens']} new tokens",
    ]
    head = (
        "| | rollout, tokens/s | update, tokens/s | step, s | | rollout, peak GiB | "
        "update, peak GiB |"
    )
    rows = [row(way, first) for way in ways]
    return "\n".join(["; ".join(about), "", head, "|---" * 7 + "|", *rows])


def row(found: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """One way as a line."""
    name = f"{WAYS[found['way']]} {found.get('version', '')}".strip()
    if "phases" not in found:
        return f"| {name} | ran out of memory in {found['out_of_memory']} | | | | | |"
    speed, phases = found["tokens_per_second"], found["phases"]
    cells = [
        name,
        f"{speed['rollout']:,.0f}",
        f"{speed['update']:,.0f}",
        f"{found['step_seconds']:.3g}",
        f"{found['step_seconds'] / first['step_seconds']:.2f}x",
        gib(phases["rollout"]["peak"]),
        gib(phases["update"]["peak"]),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
