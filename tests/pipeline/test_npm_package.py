"""Tests packages from a registry on this machine, requested by npm's own program."""

import base64
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpusmill.pipeline.cache import NpmPackage
from corpusmill.pipeline.errors import InputError


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"package.json": b'{"name":"@some/lists","version":"1.2.3"}', "en.json": b'["a"]', "data/b.txt": b"b", "data/a.txt": b"a"}
ARCHIVE = archive_of(FILES)
PATH = "/@some/lists/-/lists-1.2.3.tgz"


def package(sha256: str = hashlib.sha256(ARCHIVE).hexdigest()) -> NpmPackage:
    return NpmPackage("@some/lists", "1.2.3", sha256, "give your own lists")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Returns the address of a registry with one package, and the requested paths."""
    asked: list[str] = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.replace("%2f", "/"))
            host = f"http://{self.headers['Host']}"
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(ARCHIVE).digest()).decode()
            version = json.loads(FILES["package.json"]) | {"dist": {"tarball": host + PATH, "integrity": integrity}}
            packument = {"name": "@some/lists", "dist-tags": {"latest": "1.2.3"}, "versions": {"1.2.3": version}}
            content = {PATH: ARCHIVE, "/@some/lists": json.dumps(packument).encode()}.get(asked[-1])
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
    yield address, asked
    server.shutdown()


@pytest.fixture
def npm(registry: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the paths that the program npm requests from the registry."""
    if not shutil.which("npm"):
        pytest.skip("the program npm is not there")
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(Path.home() / "npm-cache"))
    monkeypatch.setenv("NPM_CONFIG_FETCH_RETRIES", "0")
    return registry[1]


def test_files_come_once_and_then_from_the_cache_unless_it_is_damaged(npm: list[str], tmp_path: Path) -> None:
    assert package().files(r"data/.*\.txt") == {"data/a.txt": b"a", "data/b.txt": b"b"}
    asked = list(npm)
    assert PATH in asked
    assert package().files(r"en\.json") == {"en.json": b'["a"]'}
    with pytest.raises(InputError, match=r"has no file .*; give your own lists\.$"):
        package().files(r"fr\.json")
    assert npm == asked
    (cached,) = (tmp_path / "cache" / "npm").glob("*.tgz")
    cached.write_bytes(b"damaged")
    assert package().archive() == ARCHIVE == cached.read_bytes()


def test_another_archive(npm: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^npm package @some/lists@1\.2\.3: the fetched file is another one \(sha256 .*; give your own"):
        package("0" * 64).archive()
    assert not list(tmp_path.glob("cache/npm/*.tgz"))
