"""Sweet Spot Learning for grid puzzles: solved, and how many free cells are right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer
from mmrl.ops.tiers import tiered, zone_levels
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

Grid = list[list[str]]


@rewards.register("ssl_grid")
class SslGrid(RewardConfig):
    """R = C + alpha level: C is 1 for the solved grid, the level that of the share of right cells.

    Sudoku, ARC and the like (arXiv:2601.22491). The prompt's answer is the solution, its metadata
    `puzzle` the given grid with `.` or 0 in free cells (without one all are free); only free
    cells count. Cells are parted by white space or commas, or stand together; rows are lines.
    A text without a grid of the solution's shape scores 0; a solution without free cells, or of
    another shape than the puzzle, NaN.
    """

    alpha: float = Field(default=0.2, ge=0, lt=1)
    zones: int = Field(default=4, ge=2)

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        if sample.prompt.answer is None:
            return float("nan")
        solution = read_grid(reference_answer(sample.prompt.answer))
        puzzle = sample.prompt.metadata.get("puzzle")
        free = free_cells(solution, None if puzzle is None else read_grid(str(puzzle)))
        found = read_grid(answer_block(sample.text) or "")
        if [len(row) for row in found] != [len(row) for row in solution]:
            return 0.0
        right = sum(found[row][column] == solution[row][column] for row, column in free)
        share = torch.tensor([right / len(free)], dtype=torch.float64)
        solved = torch.tensor([float(found == solution)], dtype=torch.float64)
        return tiered(solved, zone_levels(share, self.zones), alpha=self.alpha).item()


def read_grid(text: str) -> Grid:
    """Rows of cells; a row of one word is a row of characters."""
    rows = [line.replace(",", " ").split() for line in text.strip().splitlines()]
    return [list(row[0]) if len(row) == 1 else row for row in rows if row]


def free_cells(solution: Grid, puzzle: Grid | None) -> list[tuple[int, int]]:
    """Row and column of the cells that are not given; ValueError for shapes that differ or none."""
    if puzzle is not None and [len(row) for row in puzzle] != [len(row) for row in solution]:
        raise ValueError("the puzzle and its solution have different shapes")
    cells = [(r, c) for r, row in enumerate(solution) for c, _ in enumerate(row)]
    free = [(r, c) for r, c in cells if puzzle is None or puzzle[r][c] in (".", "0")]
    if not free:
        raise ValueError("the solution has no free cell to score")
    return free
