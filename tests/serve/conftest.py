"""One running service for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

TOKEN = "a-token-of-the-tests"
MMRL = [sys.executable, "-c", "from mmrl.cli import main; main()"]
SCORERS = Path(__file__).parent / "scorers.py"


@dataclass(frozen=True)
class Service:
    url: str
    process: subprocess.Popen[str]


@contextmanager
def running(config: dict, folder: Path) -> Iterator[Service]:
    """`mmrl serve` in a process of its own, from the moment it answers."""
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {**os.environ, "MMRL_REWARD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    log = folder / "serve.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*MMRL, "serve", str(file)], env=environment, stdout=sink, stderr=sink, text=True
        )
    try:
        yield Service(wait_for_address(process, log), process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_address(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + 120
    while "serving at " not in (told := log.read_text("utf-8")):
        assert process.poll() is None and time.monotonic() < deadline, told
        time.sleep(0.05)
    return told.split("serving at ")[1].split()[0]


def other_environment(folder: Path) -> Path:
    """The interpreter of an environment that sees our packages and one module of its own."""
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    root = str(Path(__file__).parent.parent.parent)
    (site / "ours.pth").write_text("\n".join([*ours, root]), encoding="utf-8")
    (site / "only_here.py").write_text("VALUE = 100.0\n", encoding="utf-8")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    names = ("length", "brightness", "elsewhere")
    scorers = {name: {"path": f"{SCORERS}:{name}"} for name in names}
    scorers["length"] |= {"timeout_s": 2.0, "max_batch": 8}
    scorers["brightness"] |= {"fields": {"gain": 2.0}}
    scorers["elsewhere"] |= {"python": str(other_environment(folder / "other"))}
    os.environ["MMRL_REWARD_TOKEN"] = TOKEN
    with running({"port": 0, "max_body_mb": 1, "scorers": scorers}, folder) as found:
        yield found
