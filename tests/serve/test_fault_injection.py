"""A training goes on while its reward fails in every way, and learns from no failed sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.fault_injection import (
    SCORER,
    Curve,
    proxy,
    remote,
    service_config,
    train,
    train_through_an_outage,
)
from benchmarks.serving import running

CAUSES = ("abstained", "timeout", "error", "unavailable", "skipped", "short_group")


def assert_scores_are_true_or_nan(curve: Curve) -> None:
    given, truth = torch.cat(curve.given), torch.cat(curve.truth)
    known = ~given.isnan()
    assert known.any()
    torch.testing.assert_close(given[known], truth[known], rtol=0, atol=1e-6)


def clean_run(folder: Path, steps: int) -> Curve:
    (folder / "here.py").write_text(SCORER)
    return train({"path": f"{folder / 'here.py'}:brightness"}, steps=steps)


@pytest.mark.slow
def test_every_injected_fault_is_counted_and_none_becomes_a_score(tmp_path: Path) -> None:
    """Without retries each call is one sample: the proxy's counts are the trainer's."""
    with (
        running(service_config(tmp_path), tmp_path) as service,
        proxy(service.url, rate=0.2, seed=3) as (chaos, url),
    ):
        faulty = train(remote(url, retries=0, breaker_after=100, outage_s=0), steps=8)
    assert_scores_are_true_or_nan(faulty)
    injected = chaos.counts
    assert min(injected[name] for name in ("hang", "raise", "nan", "wrong_length", "http_500")) > 0
    assert faulty.total("timeout") == injected["hang"]
    assert faulty.total("error") == injected["raise"] + injected["wrong_length"]
    assert faulty.total("abstained") == injected["nan"]
    assert faulty.total("unavailable") == injected["http_500"]
    assert faulty.total("missing") == sum(faulty.total(cause) for cause in CAUSES)


@pytest.mark.slow
def test_a_killed_server_and_faults_cost_the_run_nothing_but_time(tmp_path: Path) -> None:
    steps = 25
    clean = clean_run(tmp_path, steps)
    faulty, injected = train_through_an_outage(tmp_path, 0, steps, kill_at=5, rate=0.1)
    assert len(faulty.true) == steps
    assert injected["outage"] > 0 and faulty.total("retries") > 0
    assert faulty.total("missing") == sum(faulty.total(cause) for cause in CAUSES)
    assert_scores_are_true_or_nan(faulty)
    gained = clean.end - clean.true[0]
    assert gained > 0.05
    assert faulty.end - faulty.true[0] > gained / 2
