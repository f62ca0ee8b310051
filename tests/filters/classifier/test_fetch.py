"""Tests models by URL: fetched once into the cache under their content's hash, checked, and refused in one sentence."""

import hashlib
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpusmill.filters.step import build_steps, resolve_step
from corpusmill.pipeline.cache import fetch
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage


class Served(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_message(self, *_) -> None:
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Returns `(folder, its URL, the requested paths)`, and an empty cache."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, Served.asked = tmp_path / "served", []
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", Served.asked
    server.shutdown()
    server.server_close()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_fetched_once_and_again_where_it_is_damaged(served) -> None:
    folder, url, asked = served
    (folder / "m.bin").write_bytes(b"some model" * 1000)
    path = fetch(f"{url}/m.bin")
    assert path.read_bytes() == b"some model" * 1000 and path.parent.name == sha256(folder / "m.bin") and path.name == "m.bin"
    for again in ((), (path.parent.name,)):
        path.write_bytes(b"some motel" * 1000)
        assert fetch(f"{url}/m.bin", *again) == path and path.parent.name == sha256(path)
    (folder / "m.bin").unlink()
    assert fetch(f"{url}/m.bin") == path and asked.count("/m.bin") == 3
    assert fetch("http://elsewhere.invalid/m.bin", sha256(path)) == path  # the content is known
    assert not list(path.parents[2].glob(".tmp-*"))


def test_what_is_refused(served) -> None:
    folder, url, _ = served
    (folder / "m.bin").write_bytes(b"another")
    with pytest.raises(InputError, match=r"m\.bin: it is another file than the recipe means \(its sha256 is [0-9a-f]{64}, expected aaaa"):
        fetch(f"{url}/m.bin", "a" * 64)
    with pytest.raises(InputError, match=r"none\.bin: there is no such file \(the server says 404"):
        fetch(f"{url}/none.bin")
    with pytest.raises(InputError, match=r"nowhere://m\.bin: this kind of URL can't be opened here"):
        fetch("nowhere://m.bin")
    with pytest.raises(InputError, match=r"memory://gone/m\.bin: no such file"):
        fetch("memory://gone/m.bin")
    assert not list((folder.parent / "cache/models/files").glob("*"))


def test_other_stores(served) -> None:
    Storage("memory://store").write_bytes("m.bin", b"content")
    assert fetch("memory://store/m.bin").read_bytes() == b"content"


def digests(options: dict) -> list[str]:
    (step,) = build_steps([resolve_step({"classifier": options})])
    return step.step.model_digests()


def test_a_folder_by_url(served, toxicity, measure_step, mixed_texts) -> None:
    folder, url, asked = served
    shutil.copytree(toxicity, folder / "tox")
    assert measure_step("classifier", {"model": f"{url}/tox"}, mixed_texts) == measure_step(
        "classifier", {"model": str(toxicity)}, mixed_texts
    )
    assert digests({"model": f"{url}/tox/"}) == digests({"model": str(toxicity)})
    assert sorted(set(asked)) == ["/tox/classifier.json", "/tox/hate.bin", "/tox/toxicity.bin"]
    with pytest.raises(InputError, match=r"tox2/classifier\.json: there is no such file"):
        digests({"model": f"{url}/tox2"})
