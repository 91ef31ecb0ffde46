"""The examples work as a user's would: a package found by entry point, a script of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from mmrl.reward import RewardTable, rewards
from mmrl.types import Prompt, TextSample
assert {"brief", "loudness", "shortest_of_group"} <= set(rewards.names()), rewards.names()
samples = [TextSample(Prompt("q"), text) for text in ("A B C D", "a b", "1 2 3", "AB")]
section = {"brief": {"words": 2}, "loudness": {"ignored": "AB"}, "shortest_of_group": 1}
table = RewardTable.parse(section)
found = table.score_samples(samples, group_size=2)
assert found["brief"].tolist() == [0, 1, 0.5, 1], found
assert found["loudness"][[0, 1, 3]].tolist() == [0.5, 0, 0] and found["loudness"][2].isnan(), found
assert found["shortest_of_group"].tolist() == [0, 1, 0, 1], found
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process that sees the installed example."""
    target = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source") / "my_rewards"
    source.mkdir()
    for file in Path("examples/my_rewards").glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    here = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *here, str(source)], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_an_installed_package_of_rewards_is_known_by_name(environment: dict[str, str]) -> None:
    done = python(PROGRAM, environment)
    assert done.returncode == 0, done.stderr


def test_mmrl_list_names_functions_and_classes_of_a_package(environment: dict[str, str]) -> None:
    code = "import sys; sys.argv = ['mmrl', 'list']\nfrom mmrl.cli import main; main()"
    done = python(code, environment)
    assert done.returncode == 0, done.stderr
    assert "brief" in done.stdout and "1 up to `words` words" in done.stdout
    assert "loudness" in done.stdout


ONE = """
import torch
from mmrl.reward import RewardTable, load_reward
from mmrl.types import Prompt, TextSample, VideoSample
answer, video = TextSample(Prompt("q"), "a"), VideoSample(Prompt("q"), torch.rand(4, 3, 8, 8))
calls = [
    lambda: load_reward("answer_format")(answer),
    lambda: load_reward("smoothness")(video),
    lambda: RewardTable.parse({"smoothness": 1}).score_samples(video),
]
for call in calls:
    try:
        call()
    except TypeError as error:
        print(error)
"""


def test_one_sample_in_the_place_of_a_list_is_named() -> None:
    done = python(ONE, dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"expected a list of samples, got one {kind}; pass [sample]"
        for kind in ("TextSample", "VideoSample", "VideoSample")
    ]


def test_the_library_example_scores_trains_and_samples() -> None:
    words = [sys.executable, "examples/library.py"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "accuracy: [0.0, 1.0]"
    assert [line.split(":")[0] for line in lines[1:3]] == ["step 1", "step 2"]
    assert lines[3].startswith("a red zero moving right {'motion_direction': ")
