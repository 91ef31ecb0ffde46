"""Anchors are copies: they move when told, by how much told, and never by themselves."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmrl.trust_region.schedule import (
    EmaAnchor,
    FixedAnchor,
    PeriodicAnchor,
    StepwiseAnchor,
    TrustRegion,
    averages,
    blend_after,
    blend_before,
)
from mmrl.trust_region.weights import Anchor, blend, take_snapshot, using

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = json.loads((FOLDER / "controllers.json").read_text())
OBJECTIVES = json.loads((FOLDER / "objectives.json").read_text())


def layer(value: float = 1.0) -> nn.Linear:
    module = nn.Linear(2, 2, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_a_live_weight_changed_in_place_leaves_the_anchor_alone() -> None:
    module = layer()
    anchor = Anchor(take_snapshot(module))
    anchor.move(module, 1.0, updates=1)
    assert anchor.weights["weight"].data_ptr() != module.weight.data_ptr()
    with torch.no_grad():
        module.weight.add_(5)
    assert torch.equal(anchor.weights["weight"], torch.ones(2, 2))


def test_using_an_anchor_gives_the_live_weights_back_untouched() -> None:
    module = layer(3.0)
    old = take_snapshot(layer(1.0))
    storage = module.weight.data_ptr()
    with using(module, old):
        assert module(torch.ones(2)).tolist() == [2.0, 2.0]
    assert module(torch.ones(2)).tolist() == [6.0, 6.0]
    assert module.weight.data_ptr() == storage


def test_live_weights_return_when_the_anchor_forward_raises() -> None:
    module = layer(3.0)
    with pytest.raises(RuntimeError, match="boom"), using(module, take_snapshot(layer(1.0))):
        raise RuntimeError("boom")
    assert module.weight[0, 0] == 3


def test_a_refresh_writes_into_the_anchors_own_memory() -> None:
    module = layer()
    anchor = Anchor(take_snapshot(module))
    storage = anchor.weights["weight"].data_ptr()
    with torch.no_grad():
        module.weight.fill_(7)
    anchor.move(module, 1.0, updates=4)
    assert anchor.weights["weight"].data_ptr() == storage
    assert (anchor.weights["weight"] == 7).all()
    assert (anchor.moved_at, anchor.version) == (4, 1)


def test_other_names_or_shapes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'bias' is only in the policy"):
        blend(take_snapshot(layer()), nn.Linear(2, 2), 1.0)
    with pytest.raises(ValueError, match="'weight' has shapes"):
        blend(take_snapshot(layer()), nn.Linear(3, 2, bias=False), 1.0)


def test_periodic_anchor_moves_after_every_nth_optimizer_step() -> None:
    found = GOLDEN["anchor_every_n"]
    anchor = PeriodicAnchor(coefficient=1.0, refresh_every=found["hyper"]["every"])
    steps = range(1, found["inputs"]["optimizer_steps"] + 1)
    moved = [blend_after(anchor, step) for step in steps]
    assert [step for step in steps if moved[step - 1]] == found["expected"]["refresh_after"]
    versions = [int(sum(moved[:step])) for step in steps]
    assert versions == found["expected"]["version"]


def test_an_anchor_that_moves_by_a_share_follows_the_reference_trace() -> None:
    found = OBJECTIVES["anchor_soft_update"]
    module, anchors = nn.Linear(3, 1, bias=False).double(), found["expected"]["anchors"]
    with torch.no_grad():
        module.weight.copy_(torch.tensor([found["inputs"]["anchor"]]))
    config = PeriodicAnchor(coefficient=1.0, refresh_every=512, share=found["hyper"]["alpha"])
    anchor = Anchor(take_snapshot(module, average=averages(config)))
    with torch.no_grad():
        module.weight.copy_(torch.tensor([found["inputs"]["theta"]]))
    for number, expected in enumerate(anchors):
        anchor.move(module, blend_after(config, 512 * number), 512 * number) if number else None
        assert anchor.weights["weight"][0].tolist() == pytest.approx(expected, abs=1e-10)
    assert blend_after(config, 511) == 0
    assert averages(config) and not averages(PeriodicAnchor(coefficient=1.0))


def test_ema_anchor_follows_the_reference_trace() -> None:
    found = GOLDEN["anchor_ema"]
    module = layer(found["inputs"]["anchor0"][0]).double()
    anchor = Anchor(take_snapshot(module))
    config = EmaAnchor(coefficient=1.0, decay=1 - found["hyper"]["mu"])
    for step, (theta, expected) in enumerate(
        zip(found["inputs"]["theta"], found["expected"]["anchor"], strict=True), start=1
    ):
        with torch.no_grad():
            module.weight.fill_(theta[0])
        anchor.move(module, blend_after(config, step), step)
        assert anchor.weights["weight"][0, 0].item() == pytest.approx(expected, abs=1e-10)


def test_limits_ema_without_memory_is_a_refresh_each_step_and_with_all_of_it_is_fixed() -> None:
    assert blend_after(EmaAnchor(coefficient=1.0, decay=0.0), 3) == 1.0
    assert blend_after(PeriodicAnchor(coefficient=1.0, refresh_every=1), 3) == 1.0
    assert blend_after(EmaAnchor(coefficient=1.0, decay=1.0), 3) == 0.0
    assert blend_after(FixedAnchor(coefficient=1.0), 3) == 0.0
    assert blend_after(PeriodicAnchor(coefficient=1.0, refresh_every=100), 3) == 0.0


def test_a_ramp_lets_the_ema_start_close_and_then_keeps_its_decay() -> None:
    """decay = min(0.5, 0.2 n): 0.2, 0.4, 0.5, 0.5 of the anchor stays at steps 1 to 4."""
    module, config = layer(0.0), EmaAnchor(coefficient=0.0, decay=0.5, ramp=0.2)
    anchor, kept, expected = Anchor(take_snapshot(module)), 0.0, []
    for step, decay in enumerate((0.2, 0.4, 0.5, 0.5), start=1):
        with torch.no_grad():
            module.weight.fill_(float(step))
        anchor.move(module, blend_after(config, step), step)
        kept = decay * kept + (1 - decay) * step
        expected.append(kept)
        assert anchor.weights["weight"][0, 0].item() == pytest.approx(kept, abs=1e-6)
    assert expected == pytest.approx([0.8, 1.52, 2.26, 3.13])


def test_without_a_ramp_the_first_step_keeps_the_whole_decay() -> None:
    assert blend_after(EmaAnchor(coefficient=0.0, decay=0.9), 1) == pytest.approx(0.1)


def test_only_the_stepwise_anchor_is_copied_before_the_step() -> None:
    assert blend_before(StepwiseAnchor(coefficient=1.0)) == 1.0
    assert blend_after(StepwiseAnchor(coefficient=1.0), 1) == 0.0
    assert blend_before(PeriodicAnchor(coefficient=1.0)) == 0.0


def test_k1_as_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="k1 in a loss is zero on average"):
        TrustRegion(fixed=FixedAnchor(coefficient=0.1), estimator="k1")
