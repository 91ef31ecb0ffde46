"""Versions that numbers depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mmrl", "torch", "transformers", "diffusers", "accelerate", "peft", "open_clip_torch")


def versions() -> dict[str, str]:
    """Of Python and of the packages behind every number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
