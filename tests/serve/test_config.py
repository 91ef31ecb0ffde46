"""What is wrong with a service's file is one line that names the key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mmrl.config import ConfigError, parse
from mmrl.serve.config import ScorerConfig, ServeConfig, read_token
from mmrl.serve.process import Worker
from mmrl.serve.run import load_serve_config


def test_the_service_listens_to_this_machine_only_unless_it_is_told_otherwise() -> None:
    assert parse(ServeConfig, {"scorers": {"accuracy": {}}}).host == "127.0.0.1"


def test_a_service_without_a_token_does_not_start() -> None:
    with pytest.raises(ConfigError, match="variable MY_TOKEN holds no token; set one, such as"):
        read_token("MY_TOKEN", {"MY_TOKEN": "  "})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorers: {}", "scorers: .*at least 1"),
        ("scorers: {a: {wrokers: 2}}", r"scorers\.a\.wrokers: unknown key; did you mean 'workers'"),
        ("scorers: {a: {reward: b, path: c.py:d}}", "give `reward` or `path`, not both"),
        ("port: 8800", "scorers: missing"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_serve_config(file, [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"python": "/no/such/python"}, "scorers.judge: cannot run /no/such/python"),
        ({"reward": "acuracy"}, r"scorers.judge: no reward named 'acuracy'; did you mean"),
        ({"python": "/bin/false"}, "scorers.judge: its worker did not start: .* status 1"),
    ],
)
def test_a_scorer_that_cannot_start_says_why(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asyncio.run(Worker("judge", ScorerConfig(**config)).start())
