"""Sweet Spot Learning for clicks: a hit, and how near to the middle of its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.coordinates import Border, Box, Coordinates, Point, in_picture
from mmrl.data.gui import parse_action, read_target
from mmrl.ops.tiers import distance, distance_levels, proximity, tiered, zone_levels
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("ssl_click")
class SslClick(RewardConfig):
    """R = C + alpha level: C is 1 in the box, the level that of the point's zone (2601.22491).

    Zones of equal width on exp(-d^2 / 2), d the distance from the middle in half sides times
    `sigma_scale` (`proximity`, ours: the paper's thresholds are not public); on d at 0.5, 1, 2
    (`distance`); or exp(-d^2 / 2) itself (`continuous`). An answer without a point scores 0, and
    so does one outside the picture, which nothing can click: it is no near miss. A prompt without
    a box of some area scores NaN. alpha < 1 keeps every hit above every miss.
    """

    alpha: float = Field(default=0.2, ge=0, lt=1)
    zones: int = Field(default=4, ge=2)
    levels: Literal["proximity", "distance", "continuous"] = "proximity"
    sigma_scale: float = Field(default=1.0, gt=0)
    coordinates: Coordinates = Coordinates()
    border: Border = "half_open"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        target = read_target(sample.prompt.metadata)
        if target.box is None:
            return float("nan")
        action = parse_action(sample.text)
        if action is None or action.point is None:
            return 0.0
        point = self.coordinates.to_unit(action.point, target.size, target.resized)
        if not in_picture(point):
            return 0.0
        hit = torch.tensor([float(target.box.holds(point, self.border))], dtype=torch.float64)
        return tiered(hit, self._level(point, target.box), alpha=self.alpha).item()

    def _level(self, point: Point, box: Box) -> Float[Tensor, " N"]:
        points = torch.tensor([point], dtype=torch.float64)
        boxes = torch.tensor([[box.x1, box.y1, box.x2, box.y2]], dtype=torch.float64)
        if self.levels == "distance":
            found = distance(points, boxes, sigma_scale=self.sigma_scale)
            return distance_levels(found, self.zones)
        found = proximity(points, boxes, sigma_scale=self.sigma_scale)
        return found if self.levels == "continuous" else zone_levels(found, self.zones)
