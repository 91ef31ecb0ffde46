"""Links in docs/ lead somewhere, tests that the errata name exist, and every method has a page."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from mmrl.recipe import pipelines

PAGES = sorted(Path("docs").rglob("*.md"))


def anchors(page: Path) -> set[str]:
    """Fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, link: str) -> bool:
    """Whether a link inside the project misses its file or its heading."""
    name, _, fragment = link.partition("#")
    target = page.parent / name if name else page
    return not target.exists() or bool(fragment and fragment not in anchors(target))


@cache
def named_tests(file: str) -> set[str]:
    """Names of a file's test functions."""
    tree = ast.parse(Path(file).read_text("utf-8")) if Path(file).exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and broken(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text("utf-8"))
    assert [f"{file}::{name}" for file, name in named if name not in named_tests(file)] == []


def test_every_row_of_the_errata_names_a_test() -> None:
    rows = Path("docs/errata.md").read_text("utf-8").split("## Trust region")[1].splitlines()
    cells = [row.strip("|").split(" | ") for row in rows if row.startswith("| ")]
    bare = [row[0] for row in cells if row[-1].strip() != "test" and "::" not in row[-1]]
    assert bare == []


def test_every_pipeline_has_a_page_and_no_page_is_of_another() -> None:
    pages = {page.stem for page in Path("docs/methods").glob("*.md")}
    assert pages == set(pipelines.names())
