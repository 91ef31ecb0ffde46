"""The house's rules, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    path.relative_to(ROOT)
    for top in ("mmrl", "pipelines", "rewards")
    for path in sorted((ROOT / top).rglob("*.py"))
]
FLOORS = {
    0: (
        "mmrl.types",
        "mmrl.config",
        "mmrl.config_keys",
        "mmrl.registry",
        "mmrl.torchvision_fix",
        "mmrl.versions",
    ),
    1: (
        "mmrl.ops",
        "mmrl.diffusion",
        "mmrl.mixing",
        "mmrl.advantages",
        "mmrl.objectives",
        "mmrl.trust_region.schedule",
        "mmrl.trust_region.penalty",
        "mmrl.trust_region.controller",
    ),
    2: (
        "mmrl.reward",
        "mmrl.policies",
        "mmrl.models",
        "mmrl.data",
        "mmrl.judge",
        "mmrl.trust_region.weights",
    ),
    3: (
        "mmrl.recipe",
        "mmrl.video_recipe",
        "mmrl.vlm_recipe",
        "mmrl.train",
        "mmrl.evaluate",
        "mmrl.report",
        "mmrl.serve",
        "mmrl.cli",
        "mmrl.cli_data",
        "mmrl.cli_evaluate",
        "mmrl.cli_tables",
        "mmrl.demo",
        "mmrl.launch",
        "mmrl.doctor",
    ),
    4: ("pipelines", "rewards"),
}
PURE = {"torch", "jaxtyping", "einops", "pydantic"}


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> int | None:
    inside = [
        (len(name), floor)
        for floor, names in FLOORS.items()
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    return max(inside)[1] if inside else None


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    """Floor 4 is found by entry points: nothing imports it. rewards/ reaches floor 2 at most."""
    module = module_of(path)
    mine = floor_of(module)
    for name in imports_of(path):
        theirs = floor_of(name)
        if mine is None or theirs is None:
            continue
        same_package = name.split(".")[0] == module.split(".")[0]
        assert theirs <= mine and (theirs < 4 or same_package), f"{module} imports {name}"
        if module.startswith("rewards"):
            assert theirs <= 2 or theirs == 4, f"a reward imports {name} of floor 3"


@pytest.mark.parametrize("path", [p for p in FILES if floor_of(module_of(p)) == 1], ids=str)
def test_mathematics_imports_only_torch_and_friends(path: Path) -> None:
    """No device, rank, clock, file or logger on floor 1."""
    outside = {
        name.split(".")[0]
        for name in imports_of(path)
        if not name.startswith("mmrl") and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert outside <= PURE
    banned = {"os", "time", "logging", "pathlib", "random", "subprocess"}
    assert not banned & {name.split(".")[0] for name in imports_of(path)}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    """300 lines a file, 60 a function."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.name}"


def test_no_import_cycle() -> None:
    """Following imports from any module never comes back to it."""
    graph = {module_of(path): imports_of(path) for path in FILES}

    def reach(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        for name in graph.get(module, ()):
            if name in graph and name != module and name not in done:
                reach(name, (*trail, module))
        done.add(module)

    done: set[str] = set()
    for module in graph:
        reach(module, ())


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_names_are_known_without_loading_a_model_library() -> None:
    """`import rewards, pipelines` loads none of the heavy libraries."""
    heavy = "{'transformers', 'diffusers', 'open_clip', 'decord'}"
    done = run_python(f"import sys, rewards, pipelines; assert not {heavy} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_help_and_list_do_not_import_torch(words: list[str]) -> None:
    """What keeps both under half a second."""
    done = run_python(
        f"import sys; sys.argv = ['mmrl', *{words}]\n"
        "from mmrl.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
    assert "sage_grpo" in done.stdout if words == ["list"] else "train" in done.stdout
