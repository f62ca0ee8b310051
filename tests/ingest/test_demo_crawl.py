"""Tests the choice of a crawl's source, that it is made once, the two sources, and their WARC files."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.ingest import demo_crawl as crawl
from corpusmill.ingest.demo_crawl import get_crawl, main
from corpusmill.pipeline.errors import CorpusmillError, InputError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes three sources: the first can't be reached, the second fails midway, and the third works."""
    made: list[str] = []
    monkeypatch.delitem(crawl.SOURCES, "debian")

    def source(name: str, error: Exception | None) -> Any:
        def fetch(folder: Path) -> str:
            made.append(name)
            (folder / "half.warc.gz").write_bytes(b"x")
            if error:
                raise error
            return f"some pages of {name}"

        return fetch

    monkeypatch.setitem(crawl.SOURCES, "commoncrawl", source("commoncrawl", OSError("no route")))
    monkeypatch.setitem(crawl.SOURCES, "slow", source("slow", subprocess.TimeoutExpired("apt-get", 5)))
    monkeypatch.setitem(crawl.SOURCES, "debian", source("debian", None))
    return made


def test_the_first_source_that_works_once(calls: list[str], tmp_path: Path) -> None:
    first = get_crawl(tmp_path)
    assert calls == ["commoncrawl", "slow", "debian"]
    assert first.how == "The crawl is some pages of debian."
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["crawl.json", "warc", "warc/half.warc.gz"]
    second = get_crawl(tmp_path)
    assert calls == ["commoncrawl", "slow", "debian"]
    assert (second.path, second.how) == (first.path, f"The crawl is some pages of debian (made before, in {tmp_path}).")


@pytest.mark.parametrize("damage", ["cut", "no JSON"])
def test_a_damaged_crawl_is_made_again(calls: list[str], tmp_path: Path, damage: str) -> None:
    get_crawl(tmp_path, sources=["debian"])
    if damage == "cut":
        (tmp_path / "warc" / "half.warc.gz").write_bytes(b"")
    else:
        (tmp_path / "crawl.json").write_text("[1")
    get_crawl(tmp_path, sources=["debian"])
    assert calls == ["debian", "debian"]
    assert json.loads((tmp_path / "crawl.json").read_text())["files"] == {"half.warc.gz": 1}


def test_a_given_crawl_is_taken_as_it_is(calls: list[str], tmp_path: Path) -> None:
    assert get_crawl(tmp_path / "new", str(tmp_path)).path == str(tmp_path)
    assert get_crawl(tmp_path / "new", "s3://bucket/crawl").path == "s3://bucket/crawl"
    with pytest.raises(InputError, match="there is no such crawl"):
        get_crawl(tmp_path / "new", str(tmp_path / "missing"))
    assert calls == []


def test_no_source_is_one_sentence_with_every_reason(calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CorpusmillError, match=r"commoncrawl: no route; slow: .*timed out"):
        get_crawl(tmp_path, sources=["commoncrawl", "slow"])
    assert main([str(tmp_path), "--source", "commoncrawl"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["The crawl is some pages of debian.", str(tmp_path / "warc")]


def pages(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, check_digests="raise"):
                if record.rec_type == "response" and record.http_headers.get_statuscode() == "200":
                    found[record.rec_headers["WARC-Target-URI"]] = record.content_stream().read()
    return found


def test_a_package_becomes_a_crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package made here replaces the registry's: unpacking and writing are real."""
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
    (html / "more").mkdir()
    (html / "more" / "two ü.html").write_text("<p>second</p>")
    (html / "picture.png").write_text("no page")

    def download(names: list[str], folder: Path) -> list[Path]:
        assert "anarchism" in names
        package = folder / "anarchism.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(package)], check=True, capture_output=True)
        return [package]

    monkeypatch.setattr(crawl, "download_packages", download)
    (tmp_path / "out").mkdir()
    assert crawl.fetch_debian(tmp_path / "out").startswith("2 pages of 1 documentation packages")
    assert pages(tmp_path / "out") == {
        "http://anarchist-faq.test/index.html": b'<a href="two.html">two</a>',
        "http://anarchist-faq.test/more/two%20%C3%BC.html": b"<p>second</p>",
    }
