"""The page in a real browser: it renders, and nothing in it is refused or fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from mmrl.report.page import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1100,1600",
]
COMPLAINT = re.compile(r"CONSOLE[:(].*|Refused to .*")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("no chromium here, and CI is set: install it so that the page is looked at")
    if found is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    return found


def look(browser: str, page: Path, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """What the browser prints about a page, and every line its console complains in."""
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, COMPLAINT.findall(done.stderr)


def test_the_page_renders_without_a_complaint(browser: str, demo_folder: Path, tmp_path: Path):
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    write_report(demo_folder, page)
    _, complaints = look(browser, page, tmp_path, f"--screenshot={picture}")
    assert complaints == []
    with Image.open(picture) as image:
        assert image.size == (1100, 1600)
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 200
    assert max(count for count, _ in colours) < 0.97 * 1100 * 1600


def test_the_browser_reads_the_headline_and_every_plot(
    browser: str, demo_folder: Path, tmp_path: Path
):
    page = tmp_path / "report.html"
    write_report(demo_folder, page)
    dom, complaints = look(browser, page, tmp_path, "--dump-dom")
    assert complaints == []
    assert "<h1>Held-out reward rose in 2 of 2 runs</h1>" in dom
    assert dom.count('role="img"') == page.read_text("utf-8").count('role="img"') > 20


@pytest.mark.parametrize(
    "body",
    [
        "<script>console.error('deliberate')</script>",
        "<script>undefined_function()</script>",
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>",
    ],
    ids=["console error", "script error", "refused by the policy"],
)
def test_a_page_with_a_fault_is_noticed(browser: str, tmp_path: Path, body: str):
    page = tmp_path / "fault.html"
    page.write_text(f"<!doctype html><html><head>{body}</head><body>fault</body></html>")
    _, complaints = look(browser, page, tmp_path, "--dump-dom")
    assert complaints
