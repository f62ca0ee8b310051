"""Tests crawls read over HTTP, in ranges, from servers that do and don't support ranges."""

import gzip
import random
from pathlib import Path

import pytest

from corpusmill.ingest import demo_crawl, inputs
from corpusmill.ingest.inputs import discover
from corpusmill.ingest.original import read_record
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, filesystem
from corpusmill.pipeline.stores import StoreError


@pytest.mark.long
def test_a_crawl_on_a_server_equals_the_file(server, warcs, ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(12)))
    server.files["/crawl.warc.gz"] = path.read_bytes()
    monkeypatch.setattr(inputs, "SMALLEST", 1000)
    local = ingest(path, name="local")
    remote = ingest(f"{server.base}crawl.warc.gz", name="remote")
    assert len(remote.rows) == len(local.rows) > 3
    assert [row["text"] for row in remote.data] == [row["text"] for row in local.data]
    row = remote.data[7]
    assert row["source"] == f"{server.base}crawl.warc.gz"
    assert read_record(row["source"], row["offset"], row["length"]).startswith(b"WARC/1.0\r\n")


def test_servers_that_can_not_be_used_are_one_sentence(server, warcs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="missing.warc.gz: no such file or folder"):
        discover([f"{server.base}missing.warc.gz"])
    server.files["/crawl.warc.gz"] = warcs.write([{"body": random.Random(1).randbytes(12_000_000)}])
    server.ranges = False
    with pytest.raises(InputError, match="crawl.warc.gz: the server gives whole files only, so it can't be read in pieces"):
        discover([f"{server.base}crawl.warc.gz"])
    monkeypatch.setenv("CORPUSMILL_STORE_SECONDS", "0.2")
    with pytest.raises(StoreError, match="can't be reached or fails"):
        discover(["http://127.0.0.1:1/crawl.warc.gz"])


def test_globs_and_folders_of_a_server_that_lists_them(server) -> None:
    names = ("a.warc.gz", "b.warc.gz", "c.txt.log")
    server.files |= {f"/2026/{name}": b"content" for name in names}
    server.files["/2026/"] = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
    assert expand(f"{server.base}2026/*.warc.gz") == [f"{server.base}2026/{name}" for name in names[:2]]
    with pytest.raises(InputError, match="no file matches"):
        expand(f"{server.base}2026/*.arc.gz")


def test_addresses_of_the_hugging_face_hub_reach_its_filesystem() -> None:
    """Checks that the filesystem of the Hub gets the address; without a network no more can be tested."""
    from huggingface_hub import HfFileSystem

    fs, name = filesystem("hf://datasets/allenai/c4/en/*.json.gz")
    assert isinstance(fs, HfFileSystem) and name == "datasets/allenai/c4/en/*.json.gz"


PATH = "crawl-data/CC-MAIN-2026-21/segments/1/warc/CC-MAIN-20260501-00000.warc.gz"
WARC = bytes(range(256)) * 4000


@pytest.mark.parametrize("ranges", [True, False])
def test_the_demos_crawl_is_the_head_of_the_first_file(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool) -> None:
    monkeypatch.setattr(demo_crawl, "BYTES", 100_000)
    server.files = {
        f"/{PATH}": WARC,
        (list_ := f"/crawl-data/{demo_crawl.CRAWL}/warc.paths.gz"): gzip.compress(f"{PATH}\nsecond\n".encode()),
    }
    server.ranges = ranges
    assert demo_crawl.CRAWL in demo_crawl.fetch_commoncrawl(tmp_path, server.base.rstrip("/"))
    assert (tmp_path / "CC-MAIN-20260501-00000.warc.gz").read_bytes() == WARC[:100_000]
    assert server.requests[-1] == (f"/{PATH}", "bytes=0-99999") and all(agent.startswith("corpusmill/") for agent in server.agents)
    server.files[list_] = b"no gzip"
    with pytest.raises(OSError, match="list of files"):
        demo_crawl.fetch_commoncrawl(tmp_path, server.base.rstrip("/"))
    del server.files[list_]
    with pytest.raises(OSError, match="404"):
        demo_crawl.fetch_commoncrawl(tmp_path, server.base.rstrip("/"))
