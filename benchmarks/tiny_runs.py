"""What the tiny configs of the video methods gain: `python -m benchmarks.tiny_runs FOLDER`.

Trains every configs/*/tiny*.yaml of a video method, one after the other on one thread, and prints
the table of docs/tiny_runs.md: CPU seconds of the whole command with both evaluations, held-out
means before and after, and the paired change. Runs that are there already are kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

from mmrl.config import read_yaml
from mmrl.report.changes import Change, changes, signed
from mmrl.report.run import read_run

CPU_SECONDS = "cpu_seconds.txt"


def video_configs() -> list[Path]:
    """The tiny configs that have a section `video`."""
    return [path for path in sorted(Path("configs").glob("*/tiny*.yaml")) if video(path)]


def video(path: Path) -> bool:
    """Whether a config makes videos."""
    return "video" in read_yaml(path)


def train(path: Path, folder: Path) -> None:
    """Run the command as a user does, and note the CPU time that it took."""
    if (folder / CPU_SECONDS).exists():
        return
    before = spent()
    command = [sys.executable, "-m", "mmrl", "train", str(path), f"output={folder}"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (folder / CPU_SECONDS).write_text(f"{spent() - before:.0f}\n", encoding="utf-8")


def spent() -> float:
    """CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(path: Path, folder: Path) -> str:
    """One config's line of the table."""
    run = read_run(folder)
    found = {change.name: change for change in changes(run)}
    cells = [
        f"[{path.parent.name}](methods/{path.parent.name}.md)"
        + ("" if path.stem == "tiny" else f", {path.stem}"),
        f"{len(run.steps)}",
        (folder / CPU_SECONDS).read_text("utf-8").strip(),
        f"{found['reward'].before}",
        f"{found['reward'].after}",
        change(found["reward"]),
        *(change(found[name]) for name in ("pick_score", "smoothness")),
    ]
    return f"| {' | '.join(cells)} |"


def change(found: Change) -> str:
    """The paired difference with its interval."""
    return "n/a" if found.difference is None else signed(found.difference)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    runs = {path: folder / f"{path.parent.name}-{path.stem}" for path in video_configs()}
    for path, run in runs.items():
        train(path, run)
    print("| config | steps | CPU s | before | after | change | PickScore | smoothness |")
    print("|---|---|---|---|---|---|---|---|")
    for path, run in runs.items():
        print(row(path, run))


if __name__ == "__main__":
    main()
