"""The curves of a run, in three groups: rewards, trust region, machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmrl.report.plots import Series, line_plot
from mmrl.report.run import RunData


def reward_curves(run: RunData) -> list[str]:
    """The trained reward, then every reward alone, each with a band around its mean."""
    weights = run.evaluation.get("weights", {})
    watched = set(run.evaluation.get("watched", ())) | {n for n, w in weights.items() if w == 0}
    plots = [
        line_plot("Trained reward", [_banded(run, "reward", "reward")], "sum of what is trained")
    ]
    for key in run.keys("rewards/", "/mean"):
        name = key.removeprefix("rewards/").removesuffix("/mean")
        role = "watched only" if name in watched else ""
        plots.append(line_plot(name, [_banded(run, f"rewards/{name}", name)], role))
    return [plot for plot in plots if plot]


def trust_region_curves(run: RunData) -> list[str]:
    """How far the policy moved from its anchors, and what held it."""
    plots = [
        _family("KL to each anchor", run, "kl/"),
        _family("KL coefficient", run, "coefficient/"),
        line_plot("Likelihood ratio", _named(run, ["ratio"]), "mean, new / old"),
        line_plot(
            "Clipped share of decisions",
            _named(run, ["clip_fraction", "clip_fraction_low", "clip_fraction_high"]),
        ),
        _family("Likelihood ratio, other views", run, "ratio/"),
    ]
    return [plot for plot in plots if plot]


def machine_curves(run: RunData) -> list[str]:
    """Gradient norm, learning rate, idle groups, and where the time went."""
    plots = [
        line_plot("Gradient norm", _named(run, ["grad_norm"])),
        line_plot("Learning rate", _named(run, ["lr"])),
        line_plot("Samples without a score, by cause", _causes(run)),
        line_plot("Groups whose rewards are all equal", _named(run, ["frac_reward_zero_std"])),
        _family("Seconds per step", run, "time/"),
    ]
    return [plot for plot in plots if plot]


def band_words(run: RunData) -> str:
    """What the band around a reward curve means."""
    if run.groups:
        return (
            f"Bands are \u00b1 one standard error of a step's mean over its {run.groups} prompts "
            "(the spread of all samples divided by the root of the number of prompts, "
            "an upper bound)."
        )
    return "Bands are \u00b1 one standard deviation of the samples of a step."


def _banded(run: RunData, key: str, name: str) -> Series:
    root = math.sqrt(run.groups) if run.groups else 1.0
    spread = [None if value is None else value / root for value in run.column(f"{key}/std")]
    return Series(name, _axis(run), run.column(f"{key}/mean"), spread)


def _family(title: str, run: RunData, prefix: str) -> str:
    """All metrics with one prefix in one plot; a single one is named beside the title."""
    keys = run.keys(prefix)
    series = [Series(key.removeprefix(prefix), _axis(run), run.column(key)) for key in keys]
    return line_plot(title, series, series[0].name if len(series) == 1 else "")


def _named(run: RunData, keys: Sequence[str]) -> list[Series]:
    return [Series(key.replace("_", " "), _axis(run), run.column(key)) for key in keys]


def _causes(run: RunData) -> list[Series]:
    """Counts of what went wrong with each reward, where anything did; a step without one has 0."""
    ends = ("abstained", "timeout", "error", "unavailable", "skipped", "short_group")
    keys = [key for end in ends for key in run.keys("reward/", f"/{end}")]
    return [
        Series(
            key.removeprefix("reward/").replace("/", ": "),
            _axis(run),
            [count or 0.0 for count in run.column(key)],
        )
        for key in keys
        if any(run.column(key))
    ]


def _axis(run: RunData) -> list[float]:
    return [float(step.get("step", index + 1)) for index, step in enumerate(run.steps)]
