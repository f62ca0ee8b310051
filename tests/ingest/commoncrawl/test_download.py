"""Tests downloads from a server that is busy, cuts answers, changes files and gives wrong sizes: a whole file, or a sentence."""

import gzip
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.files import file_ref, open_file
from corpusmill.pipeline.watch.progress import Bytes
from corpusmill.pipeline.web import CHUNK, CONNECTIONS, Patience, cached, download, place_of

BODY = random.Random(0).randbytes(3_000_000)
FILE = "/crawl-data/x/file.warc.gz"


class Counting(Bytes):
    """A bar that adds up its updates."""

    done = 0

    def advance(self, bytes_: int) -> None:
        self.done += bytes_


@pytest.fixture
def url(server) -> str:
    server.files[FILE] = BODY
    return server.base + FILE[1:]


def content(url: str) -> bytes:
    found = cached(url)
    assert found is not None and found.bytes == found.path.stat().st_size
    assert not [path for path in found.path.parent.iterdir() if ".part" in path.name]
    return found.path.read_bytes()


def test_a_file_is_fetched_once_and_stands_for_its_url(server, url: str, patience: Patience) -> None:
    before = file_ref(url)
    bar = Counting()
    download([url, url], bar, patience)
    assert content(url) == BODY and bar.total == bar.done == len(BODY)
    asked = len(server.requests)
    download([url], bar, patience)
    with open_file(url) as file:
        assert file.read() == BODY
    assert file_ref(url) == before  # the fingerprint is that of the file on its server
    assert len(server.requests) == asked
    (agent,) = {agent for agent in server.agents if agent.startswith("corpusmill/")}
    assert "web archives" in agent


def test_whatever_goes_wrong_in_whatever_order(server, url: str, patience: Patience) -> None:
    """Tests 25 random sequences of faults, each shorter than the patience: the file is whole, and the bar counts each byte once, also
    where the download began anew.
    """
    chance = random.Random(1)
    for number in range(25):
        name = f"/f{number}"
        server.files[name] = chance.randbytes(chance.randrange(1, 300_000))
        faults = ["limit", "fail", "rubbish", "long", "stale", 0, 1, 70_000, 200_000]
        server.faults[name] = chance.choices(faults, k=chance.randrange(5))
        bar = Counting()
        download([server.base + name[1:]], bar, patience)
        assert content(server.base + name[1:]) == server.files[name], server.asked(name)
        assert bar.done == len(server.files[name])


def test_a_server_that_falls_silent_is_asked_again(server, url: str, patience: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.web.TIMEOUT", 0.3)
    server.faults[FILE] = ["silent"]
    download([url], None, patience)
    assert content(url) == BODY and server.asked(FILE) == [None, f"bytes={1_500_000 // CHUNK * CHUNK}-"]


def test_a_pause_that_the_server_asks_for_is_kept(server, url: str, patience: Patience) -> None:
    server.faults[FILE] = ["busy"]
    started = time.monotonic()
    download([url], None, patience)
    assert time.monotonic() - started >= 1.0  # Retry-After: 1, where patience alone would wait for hundredths


def test_a_server_without_ranges_or_tags_gives_it_from_the_start(server, url: str, patience: Patience) -> None:
    server.faults[FILE] = [1_000_000]
    server.ranges = False
    download([url], None, patience)
    assert content(url) == BODY and server.sent[FILE] == len(BODY) + 1_000_000
    other = "/crawl-data/x/other.warc.gz"
    server.files[other], server.ranges, server.etags = BODY[::-1], True, False
    server.faults[other] = [1_000_000]
    download([server.base + other[1:]], None, patience)
    assert content(server.base + other[1:]) == BODY[::-1] and server.asked(other) == [None, None]


def test_a_file_that_changed_in_between_is_not_glued_together(server, url: str, patience: Patience) -> None:
    server.faults[FILE] = [1_000_000, "fail", "fail", "fail", "fail", "fail"]
    with pytest.raises(CorpusmillError, match=r"can't be fetched \(the server says 500.*run the same command again"):
        download([url], None, patience)
    place = place_of(url)
    assert place is not None and place.with_name(place.name + ".part").stat().st_size == 1_000_000
    server.files[FILE] = BODY[::-1]
    server.faults[FILE] = []
    download([url], None, patience)
    assert content(url) == BODY[::-1]


def test_another_run_goes_on_where_a_killed_one_stopped(server, url: str, patience: Patience) -> None:
    """Kills a process in the middle of the body."""
    server.faults[FILE] = [2_000_000]
    process = multiprocessing.get_context("spawn").Process(target=_download_and_die, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == 9 and cached(url) is None
    download([url], None, patience)
    assert content(url) == BODY
    assert server.asked(FILE) == [None, "bytes=2000000-"]


def _download_and_die(url: str) -> None:
    from corpusmill.pipeline import web as module

    module._Download._wait = lambda *_: os._exit(9)
    module.download([url])


def test_a_size_that_does_not_hold_is_no_file(server, url: str, patience: Patience) -> None:
    """The server gives a size below the true one: without a check, the last gzip members would be missing."""
    server.faults[FILE] = ["nosize"]
    with pytest.raises(InputError, match=r"file\.warc\.gz: the server doesn't say how large it is"):
        download([url], None, patience)
    assert cached(url) is None
    download([url], None, patience)
    found = cached(url)
    assert found is not None
    found.path.write_bytes(BODY[:-1])  # somebody cut it
    assert cached(url) is None
    download([url], None, patience)
    assert content(url) == BODY


def test_what_can_not_be_had_is_one_sentence(server, url: str, patience: Patience) -> None:
    with pytest.raises(InputError, match=r"missing\.warc\.gz: there is no such file \(the server says 404 Not Found\)\."):
        download([server.base + "missing.warc.gz"], None, patience)
    server.faults[FILE] = ["fail"] * 10
    with pytest.raises(CorpusmillError, match="500 Internal Server Error"):
        download([url], None, patience)
    assert len(server.asked(FILE)) == 5
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}/a.warc.gz"
    with pytest.raises(CorpusmillError, match=r"a\.warc\.gz: can't be fetched \(.*refused"):
        download([gone], None, patience)
    with pytest.raises(CorpusmillError, match="can't be fetched"):
        download(["http://no-such-host.invalid/a.warc.gz"], None, patience)
    for odd in ("ftp://a.test/x", "http://a.test/", "http://a.test/a/../b", "http://a.test/x?y=1"):
        with pytest.raises(InputError, match="no plain file of a web server"):
            download([odd], None, patience)


def test_a_full_disk_is_one_sentence(server, url: str, patience: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(url)
    assert place is not None
    place.parent.mkdir(parents=True)
    part = place.with_name(place.name + ".part")
    part.symlink_to("/dev/full")  # the kernel's own full disk
    with pytest.raises(InputError, match=r"can't be written \(No space left on device\)"):
        download([url], None, patience)
    part.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"3,000,000 bytes are missing and .* has room for 1,000; set CORPUSMILL_CACHE"):
        download([url], None, patience)


def test_few_connections_at_a_time(server, patience: Patience) -> None:
    urls = []
    for number in range(12):
        server.files[f"/f{number}"] = BODY[:200_000]
        urls.append(f"{server.base}f{number}")
    download(urls, None, patience)
    assert all(content(url) == BODY[:200_000] for url in urls)
    assert server.most_open <= CONNECTIONS == 2


def test_two_runs_fetch_a_file_once(server, url: str, patience: Patience) -> None:
    threads = [threading.Thread(target=download, args=([url], None, patience)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert content(url) == BODY and server.asked(FILE) == [None]


def test_an_interrupted_command_ends_at_once_and_goes_on(server, url: str, tmp_path: Path) -> None:
    """Sends Ctrl-C while the server keeps the command waiting for a minute."""
    server.files["/crawl-data/CC-MAIN-2026-04/warc.paths.gz"] = gzip.compress(FILE[1:].encode())
    server.faults[FILE] = [1_000_000, "wait"]
    (tmp_path / "recipe.yaml").write_text("ingest: {}\n")
    given = f"cc:CC-MAIN-2026-04?base={server.base}"
    command = [sys.executable, "-m", "corpusmill", "run", str(tmp_path / "recipe.yaml"), given, "--output", str(tmp_path / "run")]
    process = subprocess.Popen([*command, "--engine", "inline"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(server.asked(FILE)) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in err
    assert err.endswith(b"corpusmill: interrupted; run the same command again to go on where it stopped.\n")
    download([url])
    assert content(url) == BODY and server.asked(FILE) == [None, "bytes=1000000-", "bytes=1000000-"]


def test_places_are_below_the_cache(server, tmp_path: Path) -> None:
    for url in ("http://a.test:80/x/y.gz", "https://a.test/%2e%2e/%2e%2e/etc/passwd", "http://a.test//x///y", "http://a%2f..%2f.test/x"):
        place = place_of(url)
        assert place is not None and place.resolve().is_relative_to((tmp_path / "cache").resolve())
