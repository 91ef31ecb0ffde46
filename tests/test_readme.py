"""The README's tree and table name what is there."""

from __future__ import annotations

import re
from pathlib import Path

from mmrl.recipe import pipelines

TEXT = Path("README.md").read_text(encoding="utf-8")


def tree_files() -> set[str]:
    """Every file of the README's tree, with its folder."""
    found, folder = set(), ""
    for line in TEXT.split("## The tree")[1].split("```")[1].splitlines():
        name = line.split()[0] if line.split() else ""
        if not line.startswith(" "):
            folder = name
        elif name.endswith(".py"):
            found.add(folder + name)
    return found


def test_the_tree_names_every_file_with_a_line_and_no_other() -> None:
    there = {
        path.as_posix()
        for top in ("mmrl", "pipelines", "rewards")
        for path in Path(top).rglob("*.py")
        if not path.name.startswith("__")
    }
    assert tree_files() == there


def test_every_pipeline_stands_in_the_table_and_every_link_leads_somewhere() -> None:
    assert {f"`{name}`" for name in pipelines.names()} <= set(TEXT.replace("|", " ").split())
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert [link for link in links if not Path(link).exists()] == []
