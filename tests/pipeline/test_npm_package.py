"""A registry on this machine, asked by npm's own program and by ours."""

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

from corpusmill.pipeline import npm_package
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.npm_package import NpmPackage, registry_of


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
    """The address of a registry with one package, and the paths that it is asked for."""
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
def no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm_package.shutil, "which", lambda _: None)


def test_files_without_npm(registry: tuple[str, list[str]], no_npm: None) -> None:
    assert package().files(r"data/.*\.txt") == {"data/a.txt": b"a", "data/b.txt": b"b"}
    assert package().files(r"en\.json") == {"en.json": b'["a"]'}
    assert registry[1] == [PATH]  # the second time it comes from the cache


def test_a_damaged_cache_is_fetched_again(registry: tuple[str, list[str]], no_npm: None, tmp_path: Path) -> None:
    package().archive()
    (cached,) = (tmp_path / "cache" / "npm").glob("*.tgz")
    cached.write_bytes(b"damaged")
    assert package().archive() == ARCHIVE == cached.read_bytes()


def test_files_by_npm(registry: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("npm"):
        pytest.skip("the program npm is not there")
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(Path.home() / "npm-cache"))
    assert package().files(r"data/a\.txt") == {"data/a.txt": b"a"}
    assert PATH in registry[1]


def test_another_archive(registry: tuple[str, list[str]], no_npm: None, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^npm package @some/lists@1\.2\.3: the fetched archive is another one \(sha256 .*; give your own"
    ):
        package("0" * 64).archive()
    assert not list(tmp_path.glob("cache/npm/*"))


def test_no_such_file(registry: tuple[str, list[str]], no_npm: None) -> None:
    with pytest.raises(InputError, match=r"has no file .*; give your own lists\.$"):
        package().files(r"fr\.json")


def test_offline_is_one_sentence(registry: tuple[str, list[str]], no_npm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    with pytest.raises(
        InputError, match=r"can't be fetched from http://127\.0\.0\.1:9/@some/lists/-/lists-1\.2\.3\.tgz \(.*; give your own"
    ):
        package().archive()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///etc")
    with pytest.raises(InputError, match="is no http address"):
        package().archive()


def test_without_npm_and_without_settings_no_registry_is_asked(
    registry: tuple[str, list[str]], no_npm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    with pytest.raises(InputError, match=r"the program npm is not here, and no registry is set .*; give your own lists\.$"):
        package().archive()
    assert registry[1] == []


def test_the_users_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    assert registry_of("lists") == ""
    (tmp_path / ".npmrc").write_text(
        'registry="https://mirror.test/npm/"\n@some:registry = https://some.test\n//mirror.test/:_authToken=x\n'
    )
    assert registry_of("lists") == "https://mirror.test/npm"
    assert registry_of("@some/lists") == "https://some.test"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://set.test/")
    assert (registry_of("lists"), registry_of("@some/lists")) == ("https://set.test", "https://some.test")
