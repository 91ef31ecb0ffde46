"""What the environment of a worker needs, as docs/reward_service.md lists it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

MODULES = {"open-clip-torch": "open_clip", "decord2": "decord", "pyyaml": "yaml", "pillow": "PIL"}
CODE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not in this environment", name=name)

sys.meta_path.insert(0, Missing())
import torch
import mmrl.serve.worker
from mmrl.reward import load_reward
from mmrl.types import Prompt, VideoSample

reward = load_reward("smoothness")
print(reward([VideoSample(Prompt("q"), torch.zeros(3, 3, 4, 4))]).item())
"""


def module(package: str) -> str:
    name = re.split(r"[<>=;\\[ ]", package)[0].lower().replace("_", "-")
    return MODULES.get(name, name.replace("-", "_"))


def test_a_registered_reward_starts_with_the_packages_that_the_page_lists() -> None:
    """Every other dependency of mmrl is hidden."""
    text = Path("docs/reward_service.md").read_text("utf-8")
    listed = text.split("(`pip install --no-deps mmrl`),")[1].split("and what the scorer")[0]
    there = {module(word) for word in re.findall(r"[a-z0-9]+", listed)}
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    absent = {module(one) for one in project["dependencies"]} - there
    assert {"transformers", "decord", "typer"} <= absent and "torch" in there
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(absent=sorted(absent))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 1.0
