"""The reward table: what a `rewards:` section may say, and what it says back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from mmrl.config import ConfigError
from mmrl.registry import UnknownNameError
from mmrl.reward import FaultPolicy, RewardTable, load_reward
from mmrl.types import Prompt, Rollout, TextSample

SAMPLES = [TextSample(Prompt("q", answer="A"), text) for text in ("one", "two", "three")]
CLASS = """
import torch
from mmrl.reward import RewardConfig
class Brief(RewardConfig):
    words: int = 200
    def __call__(self, samples):
        count = torch.tensor([float(len(s.text.split())) for s in samples])
        return (2 - count / self.words).clamp(0, 1)
"""
FUNCTIONS = '''
from __future__ import annotations
import asyncio

def brief(sample, *, words: int = 200):
    """Falls with the number of words."""
    return max(0.0, 1 - len(sample.text) / words)

async def slow(sample):
    await asyncio.sleep(0)
    return float(len(sample.text))

def rank(group):
    order = sorted(s.text for s in group)
    return [order.index(s.text) for s in group]

def wrong(rows):
    return [0.0] * len(rows)
'''


class NoReplay:
    def rows(self, part: slice) -> NoReplay:
        return self

    def decisions(self, part: slice) -> NoReplay:
        return self


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CLASS + FUNCTIONS.replace("from __future__ import annotations\n", ""))
    return path


def test_a_users_class_comes_from_a_file(file: Path) -> None:
    table = RewardTable.parse({"brief": {"path": f"{file}:Brief", "words": 1, "weight": 2}})
    assert table.score_samples(SAMPLES)["brief"].tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match=r"brief\.wrods: unknown key; did you mean 'words'"):
        RewardTable.parse({"brief": {"path": f"{file}:Brief", "wrods": 1}})
    with pytest.raises(ConfigError, match=r"brief\.path: .* expected file\.py:name"):
        RewardTable.parse({"brief": {"path": f"{file}:Missing"}})


def test_a_plain_function_is_a_reward_and_its_parameters_are_its_config(tmp_path: Path) -> None:
    file = tmp_path / "functions.py"
    file.write_text(FUNCTIONS)
    table = RewardTable.parse(
        {
            "brief": {"path": f"{file}:brief", "words": 10},
            "slow": {"path": f"{file}:slow"},
            "rank": {"path": f"{file}:rank"},
        }
    )
    found = table.score_samples(SAMPLES, group_size=3)
    torch.testing.assert_close(found["brief"], torch.tensor([0.7, 0.7, 0.5]))
    assert found["slow"].tolist() == [3, 3, 5]
    assert found["rank"].tolist() == [0, 2, 1]
    with pytest.raises(ConfigError, match=r"brief\.words: expected int, got 'ten'"):
        RewardTable.parse({"brief": {"path": f"{file}:brief", "words": "ten"}})
    with pytest.raises(ConfigError, match=r"wrong\.path: wrong\(rows\): name the first parameter"):
        RewardTable.parse({"wrong": {"path": f"{file}:wrong"}})


def test_the_printed_section_builds_the_same_table(file: Path) -> None:
    """`mmrl resume` reads the config a run saved: a path and the faults survive it."""
    table = RewardTable.parse(
        {
            "faults": {"retries": 5},
            "brief": {"path": f"{file}:brief", "words": 7, "faults": {"timeout_s": 2.5}},
            "terse": {"reward": "accuracy", "weight": 0},
        }
    )
    again = RewardTable.parse(yaml.safe_load(yaml.safe_dump(table.describe())))
    assert again.describe() == table.describe()
    assert again.scorers["brief"].policy == FaultPolicy(retries=5, timeout_s=2.5)
    assert again.scorers["terse"].policy == FaultPolicy(retries=5)
    assert type(again.rewards["terse"]) is type(load_reward("accuracy"))


def test_a_wrong_fault_policy_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"accuracy\.faults\.retrys: unknown key; did you mean"):
        RewardTable.parse({"accuracy": {"faults": {"retrys": 1}}})
    with pytest.raises(ConfigError, match=r"faults\.budget: .*less than or equal to 1"):
        RewardTable.parse({"faults": {"budget": 2}, "accuracy": {}})


def test_a_group_with_too_few_scores_loses_those_it_has(file: Path) -> None:
    def picky(samples) -> list[float | None]:
        return [None if s.text == "two" else 1.0 for s in samples]

    samples = [*SAMPLES[:2], SAMPLES[0], SAMPLES[2]]
    table = RewardTable({"picky": picky}, {"picky": 1.0}, {"picky": FaultPolicy(least_group=2)})
    with table.scoring(2) as scoring:
        found = table.score(Rollout(samples, 2, {}, {}, {}, NoReplay()), scoring)["picky"]
    assert found[0].isnan().all()
    assert found[1].tolist() == [1, 1]
    counts = table.counts()
    assert counts["reward/picky/abstained"] == counts["reward/picky/short_group"] == 1


def test_all_weights_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="every weight is 0"):
        RewardTable.parse({"smoothness": {"weight": 0}})


def test_an_unknown_name_tells_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        load_reward("acuracy")
    with pytest.raises(ConfigError, match=r"mine\.reward: no reward named 'acuracy'"):
        RewardTable.parse({"mine": {"reward": "acuracy"}})
