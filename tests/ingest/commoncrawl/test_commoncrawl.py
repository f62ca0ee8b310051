"""Tests `cc:` inputs from a server with Common Crawl's layout."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.commoncrawl import BASE, CrawlInput, choose, files_of, parse_crawl
from corpusmill.ingest.original import read_record
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.web import cached

CRAWL = "CC-MAIN-2026-04"


def layout(segments: int, files: int, kind: str = "warc") -> list[str]:
    """Returns paths as Common Crawl names them."""
    return [
        f"crawl-data/{CRAWL}/segments/17678{s:05d}.{s}/{kind}/CC-MAIN-20260115-{n:05d}.warc{'' if kind == 'warc' else '.' + kind}.gz"
        for s in range(segments)
        for n in range(files)
    ]


def publish(server, bodies: dict[str, bytes], kind: str = "warc") -> None:
    server.files |= {f"/{path}": body for path, body in bodies.items()}
    server.files[f"/crawl-data/{CRAWL}/{kind}.paths.gz"] = gzip.compress("".join(path + "\n" for path in bodies).encode())


def test_a_crawl_equals_its_files(server, warcs, ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Despite a busy server and cut answers, documents equal those of the files, with URLs as sources; the next run requests nothing. With
    another cache nothing is done again, and without any cache the record comes by a range request.
    """
    paths = layout(4, 2)
    publish(
        server,
        {path: warcs.write([{"url": f"http://{n}.test/{i}", "body": warcs.page(i)} for i in range(3)]) for n, path in enumerate(paths)},
    )
    monkeypatch.setenv("CORPUSMILL_CC_BASE", server.base)
    given = f"cc:{CRAWL}?segments=3&files=2"
    urls = files_of(given)
    assert len(urls) == 6 and urls == sorted(urls) and len({url.split("/segments/")[1].split("/")[0] for url in urls}) == 3
    server.faults["/" + urls[2].removeprefix(server.base)] = ["busy", 700]
    server.faults["/" + urls[4].removeprefix(server.base)] = [0]
    found = ingest(given, name="crawl")
    for url in urls:
        (tmp_path / "files" / url.rpartition("/segments/")[2]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / url.rpartition("/segments/")[2]).write_bytes(server.files["/" + url.removeprefix(server.base)])
    local = ingest(tmp_path / "files", name="local")
    assert [(row["id"], row["text"]) for row in found.data] == [(row["id"], row["text"]) for row in local.data]
    assert len(found.data) == 18 and {row["source"] for row in found.data} == set(urls)
    asked = len(server.requests)
    assert ingest(given, name="crawl").run.performed == 0 and len(server.requests) == asked
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "other"))
    row = found.data[2]
    assert cached(row["source"]) is None
    raw = read_record(row["source"], row["offset"], row["length"])
    assert f"WARC-Target-URI: {row['url']}\r\n".encode() in raw
    assert ingest(given, name="crawl").run.performed == 0


def test_the_workers_of_a_cluster_read_the_server_themselves(server, warcs, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node does not see this machine's cache. Despite a busy server and cut answers, documents equal those of the downloads."""
    paths = layout(2, 2)
    publish(
        server,
        {path: warcs.write([{"url": f"http://{n}.test/{i}", "body": warcs.page(i)} for i in range(3)]) for n, path in enumerate(paths)},
    )
    server.files[f"/{paths[3]}"] = b""
    given = f"cc:{CRAWL}?segments=all&files=all&base={server.base}"
    local = ingest(given, name="local")
    monkeypatch.setenv("CORPUSMILL_CACHE", str(Path(os.environ["CORPUSMILL_CACHE"]) / "other"))
    monkeypatch.setattr(InlineEngine, "elsewhere", True)
    server.faults |= {f"/{paths[0]}": ["busy"], f"/{paths[1]}": ["fail", 200], f"/{paths[2]}": [0]}
    remote = ingest(given, name="remote")
    assert remote.data == local.data and len(remote.data) == 9 and not any(faults for faults in server.faults.values())
    assert [row["failed"] for row in remote.report if not row["kept"]] == [["empty_file"]]
    assert not any(cached(url) for url in files_of(given))


def test_a_crawl_in_a_bucket(s3, warcs, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, store = layout(2, 1), s3.bucket("commoncrawl")
    for number, path in enumerate(paths):
        s3.put(f"{store}/{path}", warcs.write([{"url": f"http://{number}.test/", "body": warcs.page(number)}]))
    s3.put(f"{store}/crawl-data/{CRAWL}/warc.paths.gz", gzip.compress("".join(f"{path}\n" for path in paths).encode()))
    found = ingest(f"cc:{CRAWL}?segments=all&base={store}")
    assert [row["source"] for row in found.data] == [f"{store}/{path}" for path in paths]
    with pytest.raises(InputError, match=f"{store}/ has no crawl CC-MAIN-2026-99 "):
        files_of(f"cc:CC-MAIN-2026-99?base={store}")


def test_text_files(server, warcs, ingest) -> None:
    record = {"url": "http://a.test/", "type": "conversion", "body": "Plain téxt of a page".encode(), "warc_content_type": "text/plain"}
    publish(server, {path: warcs.write([record]) for path in layout(1, 1, "wet")}, "wet")
    found = ingest(f"cc:{CRAWL}?kind=wet&base={server.base}")
    assert [(row["record_type"], row["kept"]) for row in found.report] == [("conversion", True)]


def test_the_choice_grows_and_depends_on_the_seed() -> None:
    paths = layout(100, 9)
    chosen = {n: choose(paths, CrawlInput(CRAWL, segments=n, files=2)) for n in (1, 3, 5)}
    assert set(chosen[1]) < set(chosen[3]) < set(chosen[5]) and len(chosen[5]) == 10
    assert set(choose(paths, CrawlInput(CRAWL, segments=3, files=1))) < set(chosen[3])
    assert choose(paths[::-1], CrawlInput(CRAWL, segments=5, files=2)) == chosen[5]
    assert choose(paths, CrawlInput(CRAWL, segments=5, files=2, seed=1)) != chosen[5]
    assert len(choose(paths, CrawlInput(CRAWL, segments=None, files=None))) == 900
    assert len(choose(paths, CrawlInput(CRAWL, segments=200, files=1))) == 100
    assert choose(paths, CrawlInput(CRAWL))[0].split("/")[3] == "1767800083.83"  # the same on every machine
    news = [f"crawl-data/CC-NEWS/2026/01/CC-NEWS-202601{n:02d}.warc.gz" for n in range(1, 10)]
    assert len(choose(news, CrawlInput("CC-NEWS/2026/01", files=4))) == 4


def test_inputs_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORPUSMILL_CC_BASE", raising=False)
    assert parse_crawl("cc:CC-MAIN-2026-04") == CrawlInput(CRAWL, "warc", 1, 1, 0, BASE)
    given = "cc:CC-MAIN-2026-04?segments=3&files=all&kind=wet&seed=7&base=http://mirror.test:8080/cc"
    assert parse_crawl(given) == CrawlInput(CRAWL, "wet", 3, None, 7, "http://mirror.test:8080/cc/")
    assert parse_crawl(given).list_url == "http://mirror.test:8080/cc/crawl-data/CC-MAIN-2026-04/wet.paths.gz"
    assert parse_crawl("cc:CC-NEWS/2026/01?segments=all").segments is None
    monkeypatch.setenv("CORPUSMILL_CC_BASE", "https://mirror.test")
    assert parse_crawl("cc:CC-MAIN-2026-04").base == "https://mirror.test/"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("cc:CC-MAIN-2026-04/../../x", "is no name of a crawl"),
        ("cc:CC-MAIN-2026-04?segment=3", "'segment' is unknown or twice"),
        ("cc:CC-MAIN-2026-04?files=1&files=2", "'a key' is unknown or twice"),
        ("cc:CC-MAIN-2026-04?segments=0", "segments is a whole number from 1 on, or all"),
        ("cc:CC-MAIN-2026-04?files=²", "files is a whole number"),
        ("cc:CC-MAIN-2026-04?seed=all", r"seed is a whole number from 0 on\."),
        ("cc:CC-MAIN-2026-04?base=ftp://x", "no address that begins with https://, http:// or s3://"),
    ],
)
def test_wrong_inputs_are_one_sentence(given: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        parse_crawl(given)
    assert str(caught.value).startswith(f"{given}: ") and "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_input_is_taken_or_refused(text: str) -> None:
    try:
        assert parse_crawl("cc:" + text).crawl.startswith("CC-")
    except InputError as error:
        assert error.exit_code == 2


def test_crawls_and_lists_that_are_not_there(server, corpusmill, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("ingest: {}\n")

    def sentence(given: str) -> str:
        code, _, err = corpusmill("run", tmp_path / "recipe.yaml", given, "--output", tmp_path / "run", "--engine", "inline")
        assert code == 2 and "Traceback" not in err
        last = err.splitlines()[-1]  # a first run says before it that it compiles
        assert last.startswith("corpusmill: ")
        return last

    assert f"has no crawl CC-MAIN-2026-99 ({server.base}crawl-data/CC-MAIN-2026-99/warc.paths.gz is not there)" in sentence(
        f"cc:CC-MAIN-2026-99?base={server.base}"
    )
    for crawl, content in {
        "CC-MAIN-1": b"<html>busy</html>",
        "CC-MAIN-2": gzip.compress(b""),
        "CC-MAIN-3": gzip.compress(b"crawl-data/../../../etc/passwd\n"),
        "CC-MAIN-4": gzip.compress(b"a\n" * 1000)[:-20],
    }.items():
        server.files[f"/crawl-data/{crawl}/warc.paths.gz"] = content
        assert "is no list of files" in sentence(f"cc:{crawl}?base={server.base}")
        assert cached(f"{server.base}crawl-data/{crawl}/warc.paths.gz") is None  # the next run asks again
    publish(server, dict.fromkeys(layout(1, 1), b"x"))
    del server.files[f"/{layout(1, 1)[0]}"]
    assert "there is no such file (the server says 404 Not Found)" in sentence(f"cc:{CRAWL}?base={server.base}")
