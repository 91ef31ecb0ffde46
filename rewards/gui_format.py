"""Does a GUI answer have its blocks and its four keys?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data import gui_released
from mmrl.data.answers import answer_block, well_formed
from mmrl.data.gui import complete, read_reference
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("gui_format")
class GuiFormat(RewardConfig):
    """1 where the whole text is a think block and a complete action, else 0 (GUI-Libra).

    An item with `is_grounding` must have the action alone. The action is a JSON object with
    the keys action_description, action_type, value (texts) and point_2d: two finite numbers, or
    "none". `tag` names the think block: "think" for Qwen2.5-VL, "thinking" for Qwen3-VL.
    `released` is the authors' code: blocks may be empty, floats are refused, booleans accepted.
    """

    tag: Literal["think", "thinking"] = "think"
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        grounding = read_reference(sample.prompt).grounding
        text = sample.text
        if self.variant == "released":
            return float(gui_released.well_formed(text, tag=self.tag, grounding=grounding))
        shaped = well_formed(text, think=not grounding, tag=self.tag)
        return float(shaped and complete(answer_block(text)))
