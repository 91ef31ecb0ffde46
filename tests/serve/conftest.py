"""One running service for the tests of this folder."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import Service, running

SCORERS = Path(__file__).parent / "scorers.py"


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
    scorers |= {name: {"reward": name} for name in ("smoothness", "vmaf")}
    scorers["length"] |= {"timeout_s": 2.0, "max_batch": 8, "max_queue": 500}
    scorers["brightness"] |= {"fields": {"gain": 2.0}}
    scorers["elsewhere"] |= {"python": str(other_environment(folder / "other"))}
    with running({"port": 0, "max_body_mb": 1, "scorers": scorers}, folder) as found:
        yield found
