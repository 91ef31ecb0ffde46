"""A model of a hub id that is not here: found out at once, told in one line, and never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants

from mmrl.config import ConfigError
from mmrl.models import hub
from mmrl.models.hub import hub_answers, local_only, one_line_errors
from mmrl.models.pipeline import load_frozen, pipeline_class
from mmrl.models.vlm_loader import load_vlm

AWAY = r"^model: nobody/nothing is not whole .* with: hf download nobody/nothing, or name a folder"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that was not told to stay offline, and that has asked nothing yet."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_answers.cache_clear()
    yield monkeypatch
    hub_answers.cache_clear()


class Refusing(BaseHTTPRequestHandler):
    """A hub that knows no model."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_hub_that_cannot_be_reached_leaves_the_local_cache(network) -> None:
    network.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub_answers()
    assert local_only("nobody/nothing")


def test_a_hub_that_answers_whatever_it_says_is_asked_for_the_model(network) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        network.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub_answers()
        assert not local_only("nobody/nothing")
        server.shutdown()


def test_a_folder_is_loaded_as_ever(tmp_path: Path) -> None:
    assert not local_only(str(tmp_path))


def test_no_request_is_made_where_the_process_is_offline(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("asked the network"))
    hub_answers.cache_clear()
    assert not hub_answers()


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`:UserWarning")  # of diffusers
def test_a_model_that_is_away_is_one_line_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=AWAY):
        load_vlm("nobody/nothing", dtype=torch.float32)
    with pytest.raises(ConfigError, match=AWAY):
        pipeline_class("nobody/nothing")


def test_weights_that_are_away_beside_cached_configs_are_one_line_too() -> None:
    from diffusers import WanPipeline

    with pytest.raises(ConfigError, match=AWAY):
        load_frozen(WanPipeline, "nobody/nothing", torch.float32)


def test_what_a_reachable_hub_refuses_is_told_in_its_first_line(monkeypatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    with (
        pytest.raises(ConfigError, match=r"from the hub: 404 no such id; .*hf auth login") as told,
        one_line_errors("nobody/nothing"),
    ):
        raise OSError("404 no such id\nand a page of advice")
    assert "\n" not in str(told.value)
