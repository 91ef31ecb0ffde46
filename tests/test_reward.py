"""The reward table: a failure is never a score, a user's reward is a file away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.registry import UnknownNameError
from mmrl.reward import RewardError, RewardTable, load_reward, score
from mmrl.types import Prompt, TextSample

SAMPLES = [TextSample(Prompt("q", answer="A"), text) for text in ("one", "two", "three")]


def lengths(samples) -> torch.Tensor:
    return torch.tensor([float(len(sample.text)) for sample in samples])


def test_a_sample_that_raises_is_nan_and_the_others_keep_their_scores() -> None:
    def picky(samples) -> torch.Tensor:
        if any(sample.text == "two" for sample in samples):
            raise RuntimeError("no")
        return lengths(samples)

    found = score("picky", picky, SAMPLES)
    assert found[[0, 2]].tolist() == [3, 5]
    assert found[1].isnan()


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_score_that_is_not_finite_is_nan(bad: float) -> None:
    found = score("bad", lambda samples: torch.tensor([1.0, bad, 2.0])[: len(samples)], SAMPLES)
    assert found[1].isnan()
    assert found[[0, 2]].tolist() == [1, 2]


def test_a_reward_that_scores_nothing_stops_the_run_with_its_own_error() -> None:
    def broken(samples) -> torch.Tensor:
        raise RuntimeError("server is down")

    with pytest.raises(RewardError, match=r"'broken' failed on all 3 samples: server is down"):
        score("broken", broken, SAMPLES)


def test_a_wrong_number_of_scores_is_no_score() -> None:
    with pytest.raises(RewardError, match=r"returned \(2,\) for 3 samples"):
        score("short", lambda samples: torch.zeros(2), SAMPLES)


def test_a_users_reward_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "from mmrl.reward import RewardConfig\n"
        "class Brief(RewardConfig):\n"
        "    words: int = 200\n"
        "    def __call__(self, samples):\n"
        "        count = torch.tensor([float(len(s.text.split())) for s in samples])\n"
        "        return (2 - count / self.words).clamp(0, 1)\n"
    )
    table = RewardTable.parse({"brief": {"path": f"{file}:Brief", "words": 1, "weight": 2}})
    assert table.score_samples(SAMPLES)["brief"].tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match=r"brief\.wrods: unknown key; did you mean 'words'"):
        RewardTable.parse({"brief": {"path": f"{file}:Brief", "wrods": 1}})
    with pytest.raises(ConfigError, match=r"brief\.path: .* expected file\.py:Name"):
        RewardTable.parse({"brief": {"path": f"{file}:Missing"}})


def test_all_weights_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="every weight is 0"):
        RewardTable.parse({"smoothness": {"weight": 0}})


def test_an_unknown_name_tells_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        load_reward("acuracy")
