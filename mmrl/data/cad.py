"""CadQuery programs: do they run, and how much of the reference solid do they fill?

The program under test runs by itself and leaves its solid in a file; a second process, which runs
only the reference, compares the two. So a program cannot report its own score.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from mmrl.config import ConfigError
from mmrl.data.sandbox import run_python

BLOCK = re.compile(r"```(?:python)?\s*\n(.*?)```", re.DOTALL)
REASONING = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
SOLID = """
import sys
import cadquery as cq

def solid_of(program, name):
    space = {"__name__": "__main__", "cq": cq, "cadquery": cq}
    exec(compile(program, name, "exec"), space)
    found = space.get("result")
    shape = found.val() if isinstance(found, cq.Workplane) else found
    if not isinstance(shape, cq.Shape):
        raise SystemExit(f"{name}: `result` is no solid")
    shapes = found.vals() if isinstance(found, cq.Workplane) else [shape]
    whole = cq.Compound.makeCompound(shapes) if len(shapes) > 1 else shape
    if not whole.isValid() or whole.Volume() <= 0:
        raise SystemExit(f"{name}: `result` is not a valid solid")
    return whole
"""
EXPORT = (
    SOLID
    + """
solid_of(open("program.py").read(), "program").exportBrep("solid.brep")
"""
)
COMPARE = (
    SOLID
    + """
import json
ours = cq.Shape.importBrep("solid.brep")
theirs = solid_of(open("reference.py").read(), "reference")
common = ours.intersect(theirs).Volume()
union = ours.Volume() + theirs.Volume() - common
print(json.dumps({"iou": max(0.0, min(1.0, common / union))}))
"""
)


class ReferenceError(ValueError):
    """A reference program that itself makes no valid solid."""


@dataclass(frozen=True)
class Judged:
    """What became of one program."""

    executes: bool
    iou: float
    """|A and B| / |A or B| by volume, in the declared frame; 0 where it does not execute."""
    error: str = ""


def program_of(text: str) -> str | None:
    """The last fenced block after the reasoning, or all of the text where it has no fence."""
    rest = REASONING.sub("", text)
    blocks = BLOCK.findall(rest)
    program = blocks[-1] if blocks else rest
    return program if "result" in program else None


def judge_answer(text: str, reference: str | None, *, seconds: float) -> Judged | None:
    """What became of the program in an answer; None without a reference to hold it to."""
    if not reference:
        return None
    program = program_of(text)
    if program is None:
        return Judged(False, 0.0, "no program")
    return judge(program, reference, seconds=seconds)


@lru_cache(maxsize=4096)
def judge(program: str, reference: str, *, seconds: float) -> Judged:
    """Run and compare; a program that fails or takes too long does not execute.

    ReferenceError where the reference makes no solid; ConfigError where CadQuery is not installed.
    """
    if find_spec("cadquery") is None:
        raise ConfigError("needs CadQuery; `pip install 'mmrl[cad]'`")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "program.py").write_text(program, encoding="utf-8")
        made = run_python(EXPORT, folder, seconds=seconds)
        if not made.ok or not (folder / "solid.brep").is_file():
            return Judged(False, 0.0, made.error)
        (folder / "reference.py").write_text(reference, encoding="utf-8")
        compared = run_python(COMPARE, folder, seconds=seconds)
        if not compared.ok:
            raise ReferenceError(f"the reference makes no solid to compare with: {compared.error}")
        return Judged(True, json.loads(compared.output)["iou"])
