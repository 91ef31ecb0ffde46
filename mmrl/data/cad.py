"""CadQuery programs: do they run, and how much of the reference solid do they fill?

The program under test and the reference run by themselves and leave their solids in files; another
process, which runs neither, compares the two. So a program cannot report its own score.
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
from mmrl.data.sandbox import Finished, run_python

BLOCK = re.compile(r"```(?:python)?[^\S\n]*+\n(.*?)```", re.DOTALL)
REASONING = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
SOLID = """
import cadquery as cq

def solid_of(program):
    space = {"__name__": "__main__", "cq": cq, "cadquery": cq}
    exec(compile(program, "program", "exec"), space)
    found = space.get("result")
    shape = found.val() if isinstance(found, cq.Workplane) else found
    if not isinstance(shape, cq.Shape):
        raise SystemExit("`result` is no solid")
    shapes = found.vals() if isinstance(found, cq.Workplane) else [shape]
    whole = cq.Compound.makeCompound(shapes) if len(shapes) > 1 else shape
    if not (whole.isValid() and 0 < whole.Volume() < float("inf")):
        raise SystemExit("`result` is not a valid solid")
    return whole
"""
EXPORT = (
    SOLID
    + """
solid_of(open("program.py").read()).exportBrep("solid")
"""
)
COMPARE = """
import json
import cadquery as cq
ours, theirs = cq.Shape.importBrep("ours"), cq.Shape.importBrep("theirs")
least = min(ours.Volume(), theirs.Volume())
if not (ours.isValid() and least > 0):
    raise SystemExit("no valid solid")
common = ours.intersect(theirs).Volume()
if not -1e-4 * least <= common <= (1 + 1e-4) * least:
    raise SystemExit(f"the kernel finds a common volume of {common}")
print(json.dumps({"iou": max(0.0, min(1.0, common / (ours.Volume() + theirs.Volume() - common)))}))
"""


@dataclass(frozen=True)
class Kernel:
    """Programs around a module that makes solids; each runs in a folder and process of its own."""

    module: str
    install: str
    export: str
    """Runs the file `program.py` and leaves its solid in the file `solid`, or fails."""
    compare: str
    """Prints {"iou": share in common} of the solids in the files `ours` and `theirs`."""


CADQUERY = Kernel("cadquery", "pip install 'mmrl[cad]'", EXPORT, COMPARE)


class UnsoundReferenceError(ValueError):
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
def judge(program: str, reference: str, *, seconds: float, kernel: Kernel = CADQUERY) -> Judged:
    """Run and compare; a program that fails, takes too long or cannot be compared does not execute.

    UnsoundReferenceError where the reference by itself makes no solid, so never for what a program
    does; ConfigError where the kernel is not installed.
    """
    if find_spec(kernel.module) is None:
        raise ConfigError(f"needs {kernel.module}; `{kernel.install}`")
    ours = solid_of(program, seconds=seconds, kernel=kernel)
    if isinstance(ours, Finished):
        return Judged(False, 0.0, ours.error)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours").write_bytes(ours)
        (folder / "theirs").write_bytes(reference_solid(reference, seconds=seconds, kernel=kernel))
        compared = run_python(kernel.compare, folder, seconds=seconds)
    if not compared.ok:
        return Judged(False, 0.0, f"cannot be compared: {compared.error}")
    return Judged(True, json.loads(compared.output)["iou"])


@lru_cache(maxsize=256)
def reference_solid(reference: str, *, seconds: float, kernel: Kernel) -> bytes:
    """The solid of a reference, made once for all answers to its prompt.

    UnsoundReferenceError, which is not kept, where it makes none.
    """
    made = solid_of(reference, seconds=seconds, kernel=kernel)
    if isinstance(made, Finished):
        raise UnsoundReferenceError(f"the reference makes no solid to compare with: {made.error}")
    return made


def solid_of(program: str, *, seconds: float, kernel: Kernel) -> bytes | Finished:
    """The file that a program's solid is kept in, or how the program ended without one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "program.py").write_text(program, encoding="utf-8")
        made = run_python(kernel.export, folder, seconds=seconds)
        solid = folder / "solid"
        return solid.read_bytes() if made.ok and solid.is_file() else made
