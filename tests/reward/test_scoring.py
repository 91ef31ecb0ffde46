"""A batch that is scored in parts while the rest of it is made: same scores, counts and limits."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import wait
from itertools import pairwise
from typing import ClassVar

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.reward import FaultPolicy, RewardConfig, RewardError, RewardTable, RewardUnavailable
from mmrl.reward.base import Unit
from mmrl.reward.scorer import CONCURRENT_CALLS
from mmrl.types import Prompt, TextSample

PATIENCE_S = 20.0
TEXTS = ("fine", "away once", "wrong", "long enough", "away", "infinite", "nothing", "good")
SAMPLES = [TextSample(Prompt("q"), text) for text in TEXTS]
CUTS = [(8,), (4, 8), (2, 4, 6, 8), (4,), ()]
"""Where the parts end; what is left over comes with the end."""
QUICK = {"backoff_s": 0.0, "breaker_rest_s": 0.0, "breaker_after": 100, "budget": 1.0} | {
    "outage_s": 0.0
}


def unreliable(unit: Unit, seen: list[int]) -> RewardConfig:
    """Fails as the texts say, notes how many samples a call gets."""
    attempts: Counter[str] = Counter()

    class Judge(RewardConfig):
        async def __call__(self, given):
            samples = [given] if unit == "sample" else given
            seen.append(len(samples))
            await asyncio.sleep(0)
            return [score(sample.text) for sample in samples]

    def score(text: str) -> float | None:
        attempts[text] += 1
        if text == "away" or (text == "away once" and attempts[text] == 1):
            raise RewardUnavailable("away")
        if text == "wrong":
            raise ValueError("wrong")
        return {"infinite": torch.inf, "nothing": None}.get(text, float(len(text)))

    Judge.unit = unit  # pyright: ignore[reportAttributeAccessIssue]
    return Judge()


def count(samples: Sequence[TextSample]) -> torch.Tensor:
    return torch.full((len(samples),), len(samples))


def table_of(reward, **policy) -> RewardTable:
    faults = FaultPolicy(**{**QUICK, **policy})
    return RewardTable(
        {"judge": reward, "count": count}, {"judge": 1, "count": 1}, {"judge": faults}
    )


def scored_in_parts(table: RewardTable, ends: Sequence[int], samples=SAMPLES):
    with table.scoring(2) as scoring:
        for start, end in pairwise((0, *ends)):
            scoring.add(samples[start:end])
        return scoring.finish(samples)


@pytest.mark.parametrize("ends", CUTS, ids=str)
@pytest.mark.parametrize("unit", ["sample", "group", "batch"])
def test_parts_change_no_score_no_status_and_no_count(unit: Unit, ends: Sequence[int]) -> None:
    calls: list[int] = []
    whole, parts = table_of(unreliable(unit, [])), table_of(unreliable(unit, calls))
    for _ in range(2):
        expected, found = whole.judge(SAMPLES, 2), scored_in_parts(parts, ends)
        for name in ("judge", "count"):
            assert found[name].statuses == expected[name].statuses
            assert found[name].reasons == expected[name].reasons
            torch.testing.assert_close(
                found[name].values, expected[name].values, equal_nan=True, rtol=0, atol=0
            )
        assert parts.counts() == whole.counts()
        assert parts.counts()["reward/judge/retries"] > 0
        assert parts.scorers["judge"].budget.seen == whole.scorers["judge"].budget.seen
    assert max(calls) == {"sample": 1, "group": 2, "batch": 8}[unit]


def test_the_budget_is_spent_once_a_batch_and_at_its_end() -> None:
    table = table_of(unreliable("sample", []), budget=0.3)
    with table.scoring(2) as scoring:
        scoring.add(SAMPLES[4:6])
        with pytest.raises(RewardError, match="failed on 5 of 8 samples"):
            scoring.finish([*SAMPLES[4:6], *[SAMPLES[2]] * 3, *SAMPLES[:1] * 3])


def held(started: threading.Event, cancelled: threading.Event) -> RewardConfig:
    class Held(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    return Held()


def test_calls_under_way_are_limited_over_all_parts() -> None:
    together: list[int] = []
    full, busy = asyncio.Event(), []

    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            busy.append(sample)
            together.append(len(busy))
            if len(busy) == CONCURRENT_CALLS:
                full.set()
            await full.wait()
            busy.remove(sample)
            return 1.0

    samples = [TextSample(Prompt("q"), str(index)) for index in range(40)]
    found = scored_in_parts(table_of(Judge(), timeout_s=PATIENCE_S), range(4, 41, 4), samples)
    assert found["judge"].statuses == ("ok",) * 40
    assert max(together) == CONCURRENT_CALLS


def test_an_error_between_two_parts_cancels_what_is_under_way() -> None:
    started, cancelled = threading.Event(), threading.Event()
    table = table_of(held(started, cancelled))
    with pytest.raises(KeyError), table.scoring(2) as scoring:
        scoring.add(SAMPLES[:2])
        assert started.wait(PATIENCE_S)
        raise KeyError
    assert cancelled.wait(PATIENCE_S)


def test_a_cancelled_probe_leaves_the_breaker_to_the_next_one() -> None:
    started, cancelled = threading.Event(), threading.Event()
    table = table_of(held(started, cancelled), breaker_after=1)
    table.scorers["judge"].caller.breaker.failed(0)
    with table.scoring(2) as scoring:
        scoring.add(SAMPLES[:1])
        assert started.wait(PATIENCE_S)
        call = scoring.batches["judge"].calls[0]
    wait([call])
    assert cancelled.wait(PATIENCE_S)
    with table.scoring(2) as scoring:
        started.clear()
        scoring.add(SAMPLES[:1])
        assert started.wait(PATIENCE_S)


def test_a_mistake_in_the_config_is_raised_with_the_next_part() -> None:
    class Lost(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            raise ConfigError("no token", key="token_env")

    with table_of(Lost()).scoring(2) as scoring:
        scoring.add(SAMPLES[:2])
        wait(scoring.batches["judge"].calls)
        with pytest.raises(ConfigError, match="no token"):
            scoring.add(SAMPLES[2:4])
