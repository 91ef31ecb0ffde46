"""A table loses nothing: not in a pipe, and not on a narrow terminal."""

from __future__ import annotations

import sys

import pytest

from mmrl.cli_tables import plain_console, print_table

LONG = f"rewards/{'motion' * 30}/end"


def test_a_row_is_one_whole_line_where_there_is_no_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("metric", "difference"), [(LONG, "[+0.0010, +0.0200]")])
    plain_console().print(LONG)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [LONG, "[+0.0010,", "+0.0200]"]
    assert lines[2] == LONG


def test_a_long_cell_goes_on_in_the_next_line_of_a_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("file",), [(LONG,)])
    head, *lines = capsys.readouterr().out.splitlines()
    assert "…" not in head and max(map(len, lines)) <= 80
    assert "".join(line.strip() for line in lines) == LONG


@pytest.mark.parametrize(("numbers", "line"), [(True, "a       1"), (False, "a     1")])
def test_numbers_stand_at_the_right(capsys, numbers: bool, line: str) -> None:
    print_table(("what", "MiB"), [("a", "1")], numbers=numbers)
    assert capsys.readouterr().out.splitlines()[1].rstrip() == line
