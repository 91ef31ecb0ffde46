"""CadQuery programs: the sandbox, what counts as a program, and volumes in common."""

from __future__ import annotations

import contextlib
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from mmrl.config import ConfigError
from mmrl.data.cad import Kernel, UnsoundReferenceError, judge, program_of
from mmrl.data.sandbox import run_python
from mmrl.mixing import Gate, Mixing

BOX = "import cadquery as cq\nresult = cq.Workplane('XY').box(1, 1, {})\n"
kernel = pytest.mark.skipif(find_spec("cadquery") is None, reason="CadQuery is not installed")


def test_a_program_that_runs_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys\n"
        "run = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "open('child', 'w').write(str(run.pid))\n"
        "run.wait()\n"
    )
    found = run_python(child, tmp_path, seconds=5.0)
    assert found.timed_out and not found.ok
    pid = int((tmp_path / "child").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=30)


def test_a_program_sees_no_environment_and_cannot_take_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    found = run_python("import os; print(sorted(os.environ))", tmp_path, seconds=20)
    assert "SECRET_TOKEN" not in found.output and "PATH" in found.output
    greedy = run_python("x = bytearray(2 << 30)", tmp_path, seconds=20, memory_mib=512)
    assert not greedy.ok and "MemoryError" in greedy.error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>```python\nresult = 1\n```</think>```python\nresult = 2\n```", "result = 2\n"),
        ("```\nresult = 1\n```\n```python\nresult = 2\n```", "result = 2\n"),
        ("result = 3", "result = 3"),
        ("I cannot do that.", None),
    ],
)
def test_the_program_is_the_last_block_after_the_reasoning(text: str, expected: str | None) -> None:
    assert program_of(text) == expected


def test_a_program_that_does_not_execute_earns_nothing_whatever_the_judge_says() -> None:
    mixing = Mixing(gates={"cad_executes": Gate(below=0.5, reward=0.0)})
    scores = {
        "cad_executes": torch.tensor([[1.0, 0.0, 1.0]]),
        "cad_geometry": torch.tensor([[0.8, 0.0, 0.0]]),
        "vlm_judge": torch.tensor([[0.6, 1.0, 0.0]]),
    }
    weights = {"cad_executes": 0.0, "cad_geometry": 0.5, "vlm_judge": 0.5}
    found = mixing.combine(scores, weights, 0)
    assert torch.allclose(found, torch.tensor([[0.7, 0.0, 0.0]]))


@pytest.mark.skipif(find_spec("cadquery") is not None, reason="CadQuery is installed")
def test_without_the_kernel_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"mmrl\[cad\]"):
        judge("result = 1", "result = 1", seconds=1)


INTERVALS = Kernel(
    "json",
    "nothing",
    export="""
import json
space = {}
exec(open("program.py").read(), space)
low, high = space["result"]
assert low < high
open("solid", "w").write(json.dumps([low, high]))
""",
    compare="""
import json
(a, b), (c, d) = (json.load(open(name)) for name in ("ours", "theirs"))
while b > 1000:
    pass
if b > 100:
    raise SystemExit("too complicated")
common = max(0, min(b, d) - max(a, c))
print(json.dumps({"iou": common / (b - a + d - c - common)}))
""",
)
"""A kernel of one dimension: solids are intervals; some it cannot compare, or not in time."""


def test_lengths_in_common_of_a_kernel_of_one_dimension() -> None:
    found = judge("result = 0, 2", "result = 1, 3", seconds=20, kernel=INTERVALS)
    assert found.executes and found.iou == pytest.approx(1 / 3)
    assert judge("result = 0, 1", "result = 2, 3", seconds=20, kernel=INTERVALS).iou == 0


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("result = 1 / 0", "ZeroDivisionError"),
        ("result = 1, 0", "AssertionError"),
        ("while True: result = 1", "took longer than 3 s"),
        ("import sys; sys.exit(0)", ""),
        ("result = 0, 200", "cannot be compared: too complicated"),
        ("result = 0, 2000", "cannot be compared: took longer than 3 s"),
        ("open('solid', 'w').write('x'); import os; os._exit(0)", "cannot be compared"),
    ],
)
def test_whatever_a_program_does_beside_a_sound_reference_it_is_the_program_that_fails(
    program: str, error: str
) -> None:
    found = judge(program, "result = 1, 3", seconds=3, kernel=INTERVALS)
    assert not found.executes and found.iou == 0.0 and error in found.error


@pytest.mark.parametrize(
    "reference", ["result = 1 / 0", "result = 2, 1", "import sys; sys.exit(0)"]
)
def test_a_reference_that_makes_no_solid_is_an_error(reference: str) -> None:
    with pytest.raises(UnsoundReferenceError, match="the reference makes no solid"):
        judge("result = 0, 1", reference, seconds=20, kernel=INTERVALS)


def test_a_reference_runs_once_for_all_answers_to_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    reference = f"open({str(runs)!r}, 'a').write('x'); result = 1, 3"
    for high in (2, 3, 4):
        assert judge(f"result = 1, {high}", reference, seconds=20, kernel=INTERVALS).executes
    assert runs.read_text() == "x"


def test_a_fence_with_many_blank_lines_is_read_in_one_pass() -> None:
    start = time.process_time()
    assert program_of("```" + "\n" * 50_000 + "result = 1") is not None
    assert time.process_time() - start < 0.5


@kernel
@pytest.mark.slow
def test_volumes_in_common_by_hand() -> None:
    one, two = BOX.format(1), BOX.format(2)
    assert judge(two, one, seconds=60).iou == pytest.approx(0.5)
    assert judge(one, two, seconds=60).iou == pytest.approx(0.5)
    assert judge(one, one, seconds=60).iou == pytest.approx(1.0)
    far = one + "result = result.translate((5, 0, 0))\n"
    assert judge(far, one, seconds=60).iou == pytest.approx(0.0, abs=1e-9)


@kernel
@pytest.mark.slow
def test_a_broken_program_does_not_execute_and_a_broken_reference_is_an_error() -> None:
    cheat = "import json\nprint(json.dumps({'iou': 1.0}))\nresult = None\n"
    for program in ("result = 1/0", cheat, "while True:\n    result = 1"):
        found = judge(program, BOX.format(1), seconds=20)
        assert not found.executes and found.iou == 0.0 and found.error
    with pytest.raises(UnsoundReferenceError):
        judge(BOX.format(1), "result = None", seconds=60)
