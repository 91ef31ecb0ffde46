"""Models of a hub id: one answer whether the hub can be reached, and one line where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import get_session

from mmrl.config import ConfigError

WAIT_S = 10.0
"""Longest wait for the hub's first answer."""


def local_only(path: str) -> bool:
    """Whether `path` is a hub id of which only the local cache counts, since the hub is away.

    The libraries are told so: left to find out themselves they ask again for half a minute.
    """
    return not Path(path).is_dir() and not hub_answers()


@cache
def hub_answers() -> bool:
    """Whether the hub answers one request, asked once a process; never with HF_HUB_OFFLINE."""
    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=WAIT_S)
    except (OSError, httpx2.HTTPError):
        return False
    return True


@contextmanager
def one_line_errors(path: str) -> Iterator[None]:
    """A ConfigError with the cure in the place of what libraries raise for a model that is away."""
    try:
        yield
    except OSError as error:
        raise ConfigError(_told(path, error), key="model") from error


def _told(path: str, error: OSError) -> str:
    said = " ".join(str(error).split("\n")[0].split())
    if Path(path).is_dir():
        return f"{path} cannot be loaded: {said}"
    if not hub_answers():
        return (
            f"{path} is not whole in the local cache and the hub cannot be reached; where there is "
            f"a network, fetch it with: hf download {path}, or name a folder that holds it"
        )
    return (
        f"{path} cannot be loaded from the hub: {said}; does the id exist, and does its page ask "
        "for a licence to be accepted (hf auth login)? Or name a folder that holds it"
    )
