"""What a reward can find wrong before the first rollout is found there, and named by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.config import ConfigError
from mmrl.reward import RewardTable
from mmrl.train.loop import load_config
from tests.tiny import video_config

AWAY = "http://127.0.0.1:9"
REMOTE = {"reward": "remote", "scorer": "x", "url": AWAY, "start_timeout_s": 0, "weight": 0.0}
ENDPOINT = {"kind": "endpoint", "url": AWAY, "model": "m", "api_key_env": "NO_SUCH_KEY"}
JUDGE = {"reward": "vlm_judge", "question": "{prompt}?"}
MINE = """
from mmrl.config import ConfigError
from mmrl.reward import RewardConfig

class Mine(RewardConfig):
    limit: int = 3

    def check(self):
        raise ConfigError(f"{self.limit} is too few", key="limit")
"""


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMRL_REWARD_TOKEN", "t")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reward": "clip_score", "model": "none/here"}, r"rewards\.a\.model: none/here holds nei"),
        ({"reward": "pick_score", "model": "rewards"}, r"rewards\.a\.model: rewards holds neither"),
        ({"reward": "hps", "model": "assets/tiny-pick"}, r"rewards\.a\.model: .* no open_clip"),
        (
            {"reward": "image_reward", "model": "x/y", "checkpoint": "lost.pt"},
            r"rewards\.a\.checkpoint: lost\.pt: no such file",
        ),
        (REMOTE, r"rewards\.a\.url: no reward service answers at http://127\.0\.0\.1:9 .*serve"),
        ({**REMOTE, "token_env": "NO_SUCH"}, r"rewards\.a\.token_env: the variable NO_SUCH holds"),
        ({**JUDGE, "judge": ENDPOINT}, r"rewards\.a\.judge\.api_key_env: .*NO_SUCH_KEY is not set"),
        (
            {**JUDGE, "judge": {"kind": "local", "model": "rewards"}},
            r"rewards\.a\.judge\.model: rewards holds no config\.json",
        ),
    ],
)
def test_a_mistake_is_named_by_its_key(entry: dict[str, Any], message: str) -> None:
    table = RewardTable.parse({"smoothness": 1.0, "a": entry})
    with pytest.raises(ConfigError, match=message):
        table.check()


def test_an_url_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"a\.url: expected http://host:port, got 'host:88'"):
        RewardTable.parse({"a": {**REMOTE, "weight": 1.0, "url": "host:88"}})


def test_a_users_check_is_asked_before_training(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    tree = video_config(tmp_path / "run")
    tree["rewards"]["mine"] = {"path": f"{tmp_path / 'mine.py'}:Mine"}
    with pytest.raises(ConfigError, match=r"^rewards\.mine\.limit: 3 is too few"):
        load_config(tree).build()
