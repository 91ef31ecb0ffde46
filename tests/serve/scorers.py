"""Rewards that the tests serve; workers load this file by path."""

import os
import time

import torch
from PIL import Image, ImageStat


def length(samples):
    """Characters of the text; some words make trouble."""
    print("a reward may print")
    texts = [sample.text for sample in samples]
    if any("hang" in text for text in texts):
        time.sleep(60)
    if any("die" in text for text in texts):
        os._exit(3)
    if any("bad" in text for text in texts):
        raise ValueError("bad sample")
    time.sleep(0.02)
    return [None if "skip" in text else float(len(text)) for text in texts]


def whoami(samples):
    """The number of this process, after a while."""
    time.sleep(0.2)
    return [float(os.getpid()) for _ in samples]


def brightness(sample, *, gain: float = 1.0):
    """gain times the mean of all pixels, in float64 and back."""
    return gain * sample.video.double().mean().item()


def elsewhere(group):
    """Place by length, plus the mean red of the prompt's first picture, in one environment only."""
    import only_here  # pyright: ignore[reportMissingImports]

    lengths = [len(sample.text) for sample in group]
    red = 0.0
    if group[0].prompt.images:
        with Image.open(group[0].prompt.images[0]) as image:
            red = ImageStat.Stat(image).mean[0]
    return torch.tensor(lengths).argsort().argsort() + red + only_here.VALUE
