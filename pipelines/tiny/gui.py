"""Train assets/tiny-gui on windows of screens: `python -m pipelines.tiny.gui`.

A Qwen3-VL of 0.5 M parameters that is shown a window of a screen and an instruction, and writes
one click as GUI-Libra's JSON on 0..1000. First its vision tower learns where things are, then the
model learns to write clicks with action-aware weights. The written clicks land low, as those of a
pointer whose tip is mistaken, and so do the model's: that is left to reinforcement learning, which
knows the boxes. Needs `mmrl data fetch gui_windows`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmrl.data.coordinates import Coordinates
from mmrl.data.gui import read_reference
from mmrl.data.prompts import load_prompts
from mmrl.models.vlm_family import VlmInputs
from mmrl.models.vlm_loader import adapt
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import load_reward
from mmrl.train.action_sft import action_aware
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt
from pipelines.tiny.gui_model import build_model, build_processor
from pipelines.tiny.qwen_models import Size

FOLDER = Path("assets/tiny-gui")
SIZE = Size(width=64, layers=2, vision=2)
PIXELS = 192 * 96
"""Windows of 256 x 144 become 160 x 96: 5 x 3 image tokens."""
COLUMNS, ROWS = 5, 3
BINS = 20
"""Written clicks stand on a grid of 1000 / BINS."""
LOW = 0.6
"""How far below the middle the written clicks stand, in heights of the element."""
EXAMPLES = 2000
SFT = SftConfig(steps=900, batch=32, lr=3e-3, weight_decay=0.01, seed=0, keep_inputs=True)
WEIGH = action_aware(alpha_action=1.0, alpha_ground=4.0)
MAX_NEW_TOKENS = 28
COORDINATES = Coordinates(space="thousand")
KINDS = {"text_field": "field"}
CARD = """---
license: mit
pipeline_tag: image-text-to-text
---
# tiny-gui

A Qwen3-VL of {parameters:,} parameters (2 text and 2 vision layers, width 64) that is shown a
window of a screen, 256 x 144 pixels as 15 image tokens, and an instruction, and writes one click
as JSON on 0..1000. It exists to try reinforcement learning on a CPU.

| | |
|---|---|
| made by | `mmrl data fetch gui_windows && python -m pipelines.tiny.gui` |
| start | {look} steps of the vision tower alone, then {steps} supervised steps of {batch} |
| took | {seconds:.0f} s of CPU time |
| greedy click in box | {click:.3f} on {count} windows of screens it has not seen |
| well-formed actions | {form:.3f} |
| data | {train} windows of rendered screens from openadapt-grounding 0.1.2 (MIT) |

The start is flawed on purpose: its written clicks stand {low} heights below the middle.
`configs/gui_libra/tiny.yaml` and `configs/ssl/tiny.yaml` go on from here with the true boxes.
"""


@dataclass(frozen=True)
class Look:
    """How the vision tower learns before the text model does."""

    steps: int = 400
    batch: int = 32
    lr: float = 3e-3


def main() -> None:
    """Build, train, measure on the held-out side, save with a model card."""
    torch.manual_seed(SFT.seed)
    prompts = load_prompts("cache:gui_windows/train.jsonl")
    held_out = load_prompts("cache:gui_windows/test.jsonl")
    some = prompts[:: max(1, len(prompts) // EXAMPLES)]
    examples = written_clicks(some, random.Random(SFT.seed))
    processor = build_processor(
        [text for one in examples for text in (one.prompt.text, one.answer)], PIXELS
    )
    module = build_model(processor.tokenizer, SIZE)
    policy = VlmPolicy(
        adapt(module.eval(), processor),  # pyright: ignore[reportArgumentType]
        max_new_tokens=MAX_NEW_TOKENS,
        rows=64,
    )
    began = time.process_time()
    look(policy, some, Look())
    sft(policy, examples, SFT, WEIGH)
    seconds = time.process_time() - began
    policy.save_pretrained(FOLDER)
    samples = policy.sample(held_out, [0] * len(held_out))
    card = CARD.format(
        parameters=sum(weight.numel() for weight in module.parameters()),
        look=Look().steps,
        steps=SFT.steps,
        batch=SFT.batch,
        seconds=seconds,
        click=load_reward("gui_click", coordinates=COORDINATES.model_dump())(samples).mean(),
        form=load_reward("gui_format", tag="thinking")(samples).mean(),
        count=len(held_out),
        train=len(prompts),
        low=LOW,
    )
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(card)


def written_clicks(prompts: Sequence[Prompt], chooser: random.Random) -> list[Example]:
    """A click just below each element, rounded to the grid."""
    examples = []
    for prompt in prompts:
        box = read_reference(prompt).target.box
        assert box is not None
        kind = str(prompt.metadata["element_type"])
        shifts = (chooser.gauss(0, 0.02), chooser.gauss(LOW, 0.02))
        places = zip(box.center, shifts, box.sides, strict=True)
        action = {
            "action_description": f"click the {KINDS.get(kind, kind)}",
            "action_type": "Click",
            "value": "None",
            "point_2d": [
                round((center + shift * side) * BINS) * (1000 // BINS)
                for center, shift, side in places
            ],
        }
        examples.append(Example(prompt, f"<answer>{json.dumps(action)}</answer>"))
    return examples


def look(policy: VlmPolicy, prompts: Sequence[Prompt], config: Look) -> None:
    """Let image tokens tell whether the target is in them and where it stands.

    A cross-entropy over the tokens finds the one that holds the target's middle; two more read
    its column and row on the grid from that token. The three heads are thrown away.
    """
    inputs = policy.model.inputs(prompts, policy.prompt_template)
    boxes = [read_reference(prompt).target.box for prompt in prompts]
    middles = torch.tensor([box.center for box in boxes if box is not None])
    width = SIZE.width
    heads = nn.ModuleList([nn.Linear(width, outputs) for outputs in (1, BINS, BINS)])
    learning = [*policy.module.model.visual.parameters(), *heads.parameters()]  # pyright: ignore
    optimizer = torch.optim.AdamW(learning, lr=config.lr, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    for step in track(range(config.steps), description="look"):
        rows = torch.randint(len(inputs), (config.batch,), generator=generator)
        tokens = image_tokens(policy, [inputs[row] for row in rows.tolist()])
        loss = pointing_loss(heads, tokens, middles[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        share = min((step + 1) / 30, (config.steps - step) / (config.steps - 30))
        optimizer.param_groups[0]["lr"] = config.lr * share
        optimizer.step()


def image_tokens(policy: VlmPolicy, inputs: Sequence[VlmInputs]) -> Float[Tensor, "N L H"]:
    """What the text model is given in the place of each picture."""
    images = [one.images for one in inputs if one.images is not None]
    joined = {name: torch.cat([one[name] for one in images]) for name in images[0]}
    found = policy.model.family.features(policy.module.model, joined).tokens  # pyright: ignore
    return found.view(len(inputs), COLUMNS * ROWS, -1)


def pointing_loss(
    heads: nn.ModuleList, tokens: Float[Tensor, "N L H"], middles: Float[Tensor, "N 2"]
) -> Float[Tensor, ""]:
    """Which token, which column, which row: three cross-entropies."""
    cells = torch.tensor([COLUMNS, ROWS])
    column, row = (middles * cells).long().clamp(max=cells - 1).unbind(1)
    holder = row * COLUMNS + column
    chosen = tokens[torch.arange(len(tokens)), holder]
    bins = (middles * BINS).round().long().clamp(0, BINS - 1)
    return (
        cross_entropy(heads[0](tokens)[..., 0], holder)
        + cross_entropy(heads[1](chosen), bins[:, 0])
        + cross_entropy(heads[2](chosen), bins[:, 1])
    )


if __name__ == "__main__":
    main()
