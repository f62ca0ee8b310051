"""Which source a crawl comes from, that it is made once, and the sources that need this machine's tools."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.pipeline.crawl import __main__ as command
from corpusmill.pipeline.crawl import sources
from corpusmill.pipeline.crawl.__main__ import get_crawl, main
from corpusmill.pipeline.crawl.crawler import Bounds
from corpusmill.pipeline.errors import CorpusmillError, InputError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources of which the first can't be reached, the second breaks off, and the third works."""
    made: list[str] = []

    def source(name: str, error: Exception | None) -> Any:
        def fetch(folder: Path) -> str:
            made.append(name)
            (folder / "half.warc.gz").write_bytes(b"x")
            if error:
                raise error
            return f"some pages of {name}"

        return fetch

    monkeypatch.setitem(command.SOURCES, "commoncrawl", source("commoncrawl", OSError("no route")))
    monkeypatch.setitem(command.SOURCES, "debian", source("debian", subprocess.TimeoutExpired("apt-get", 5)))
    monkeypatch.setitem(command.SOURCES, "pydoc", source("pydoc", None))
    return made


def test_the_first_source_that_works_once(calls: list[str], tmp_path: Path) -> None:
    first = get_crawl(tmp_path)
    assert calls == ["commoncrawl", "debian", "pydoc"]
    assert first.how == "The crawl is some pages of pydoc."
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["crawl.json", "warc", "warc/half.warc.gz"]
    second = get_crawl(tmp_path)
    assert calls == ["commoncrawl", "debian", "pydoc"]
    assert (second.path, second.how) == (first.path, f"The crawl is some pages of pydoc (made before, in {tmp_path}).")


@pytest.mark.parametrize("damage", ["cut", "gone", "no description", "no JSON"])
def test_a_damaged_crawl_is_made_again(calls: list[str], tmp_path: Path, damage: str) -> None:
    get_crawl(tmp_path, sources=["pydoc"])
    if damage == "cut":
        (tmp_path / "warc" / "half.warc.gz").write_bytes(b"")
    elif damage == "gone":
        shutil.rmtree(tmp_path / "warc")
    elif damage == "no description":
        (tmp_path / "crawl.json").unlink()
    else:
        (tmp_path / "crawl.json").write_text("[1")
    get_crawl(tmp_path, sources=["pydoc"])
    assert calls == ["pydoc", "pydoc"]
    assert json.loads((tmp_path / "crawl.json").read_text())["files"] == {"half.warc.gz": 1}


def test_a_given_crawl_is_taken_as_it_is(calls: list[str], tmp_path: Path) -> None:
    assert get_crawl(tmp_path / "new", str(tmp_path)).path == str(tmp_path)
    assert get_crawl(tmp_path / "new", "s3://bucket/crawl").path == "s3://bucket/crawl"
    with pytest.raises(InputError, match="there is no such crawl"):
        get_crawl(tmp_path / "new", str(tmp_path / "missing"))
    assert calls == []


def test_no_source_is_one_sentence_with_every_reason(calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CorpusmillError, match=r"commoncrawl: no route; debian: .*timed out"):
        get_crawl(tmp_path, sources=["commoncrawl", "debian"])
    assert main([str(tmp_path), "--source", "commoncrawl"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["The crawl is some pages of pydoc.", str(tmp_path / "warc")]


def pages(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, check_digests="raise"):
                if record.rec_type == "response" and record.http_headers.get_statuscode() == "200":
                    found[record.rec_headers["WARC-Target-URI"]] = record.content_stream().read()
    return found


def test_pydoc_renders_real_pages(tmp_path: Path) -> None:
    what = sources.fetch_pydoc(tmp_path, Bounds(), pages=12)
    found = pages(tmp_path)
    assert what.startswith("12 pages of Python's own documentation")
    assert len(found) == 12
    assert list(found)[:2] == ["http://pydoc.test/", "http://pydoc.test/index.html"]
    assert b"Index of Modules" in found["http://pydoc.test/"]


def test_a_package_becomes_a_crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package made here takes the place of the registry's: unpacking, serving and crawling are real."""
    if not shutil.which("dpkg-deb") or not shutil.which("apt-get"):
        pytest.skip("needs the tools of Debian or Ubuntu")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: anarchism\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y.test>\nDescription: x\n"
    )
    html = root / "usr" / "share" / "doc" / "anarchism" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text('<a href="two.html">two</a>')
    (html / "two.html").write_text("<p>second</p>")

    def download(names: list[str], folder: Path) -> list[Path]:
        assert "anarchism" in names
        package = folder / "anarchism.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(package)], check=True, capture_output=True)
        return [package]

    monkeypatch.setattr(sources, "download_packages", download)
    assert sources.fetch_debian(tmp_path / "out", Bounds()).startswith("2 pages of 1 documentation packages")
    assert pages(tmp_path / "out")["http://anarchist-faq.test/two.html"] == b"<p>second</p>"


def test_packages_that_no_registry_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda tool: None)
    with pytest.raises(OSError, match="apt-get is not on this machine"):
        sources.fetch_debian(tmp_path, Bounds())


def test_a_failing_apt_is_an_oserror(tmp_path: Path) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("needs the tools of Debian or Ubuntu")
    with pytest.raises(OSError, match=r"apt-get download failed \(Unable to locate package no-such-package-at-all\)"):
        sources.apt(["download", "no-such-package-at-all"], tmp_path)
    assert sources.listed(["no-such-package-at-all"], []) == []


def test_own_lists_leave_the_system_alone(tmp_path: Path) -> None:
    options = sources.own_lists(tmp_path)
    assert all(str(tmp_path) in option for option in options if option != "-o")
