"""The tiny GUI model: it loads, writes whole actions, and its clicks go where an element is."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from mmrl.data.coordinates import Coordinates
from mmrl.data.gui import parse_action
from mmrl.models.vlm_loader import load_vlm
from mmrl.policies.vlm import VlmPolicy
from mmrl.reward import load_reward
from mmrl.types import Prompt

MODEL = Path(__file__).parent.parent / "assets/tiny-gui"
PLACES = [(x, y) for x in (50, 130, 210) for y in (25, 70, 115)]


def window(folder: Path, x: int, y: int) -> Prompt:
    """A blue button of 76 x 28 pixels around (x, y) on a light screen, its label a white bar."""
    picture = Image.new("RGB", (256, 144), (245, 245, 245))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((x - 38, y - 14, x + 38, y + 14), 5, fill=(33, 150, 243))
    draw.rectangle((x - 12, y - 3, x + 12, y + 3), fill="white")
    path = folder / f"{x}_{y}.png"
    picture.save(path)
    metadata = {"action_type": "Click", "is_grounding": True, "width": 256, "height": 144}
    metadata |= {"bbox_x1": x - 38, "bbox_y1": y - 14, "bbox_x2": x + 38, "bbox_y2": y + 14}
    return Prompt("Click on the 'Stop' button", (path,), metadata=metadata)


def test_clicks_are_whole_actions_that_follow_the_button(tmp_path: Path) -> None:
    policy = VlmPolicy(load_vlm(str(MODEL), dtype=torch.float32), max_new_tokens=28, rows=16)
    prompts = [window(tmp_path, x, y) for x, y in PLACES]
    samples = policy.sample(prompts, [0] * len(prompts))
    assert load_reward("gui_format", tag="thinking")(samples).mean() > 0.85
    actions = [parse_action(sample.text) for sample in samples]
    found = [a.point for a in actions if a is not None and a.point is not None]
    assert len(found) == len(PLACES)
    clicks = torch.tensor([Coordinates(space="unit").to_unit(point) for point in found]) / 1000
    asked = torch.tensor(PLACES) / torch.tensor([256, 144])
    for axis in range(2):
        together = torch.corrcoef(torch.stack([clicks[:, axis], asked[:, axis]]))
        assert together[0, 1] > 0.7
