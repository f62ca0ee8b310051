"""Tests the file of hashes: built once and the same everywhere, shared by processes."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from corpusmill.ingest.urls import lists
from corpusmill.ingest.urls.lists import ListFile, build, open_lists
from corpusmill.pipeline.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "urls"


@pytest.fixture
def sources(tmp_path: Path) -> list[ListFile]:
    (tmp_path / "domains.txt").write_bytes(b"\xef\xbb\xbfBad.test\r\n# not.test\n\n  worse.test  \nbad.test\n")
    with gzip.open(tmp_path / "urls.gz", "wb") as file:
        file.write(b"http://www.A.test/x/\na.test/y?z\n#b.test/x\n")
    return [ListFile("domains", str(tmp_path / "domains.txt")), ListFile("urls", str(tmp_path / "urls.gz"))]


def test_entries_as_they_are_written_or_as_they_are_equal(cache: Path, sources: list[ListFile]) -> None:
    exact, equal = open_lists(sources, exact=True), open_lists(sources, exact=False)
    assert [d in exact.domains for d in ("Bad.test", "bad.test", "worse.test", "not.test", "# not.test", "")] == [1, 1, 1, 0, 0, 0]
    assert [d in equal.domains for d in ("Bad.test", "bad.test", "worse.test")] == [0, 1, 1] and len(equal.domains.values) == 2
    assert "http://www.A.test/x/" in exact.urls and "a.test/x" not in exact.urls
    assert "a.test/x" in equal.urls and "a.test/y?z" in equal.urls and "a.test" in equal.hosts and equal.depth == 1
    assert exact.words == {"hard_words": [], "soft_words": [], "subwords": []}


def test_a_list_is_built_once_and_another_content_is_another_file(cache: Path, sources: list[ListFile], monkeypatch) -> None:
    first = open_lists(sources, exact=True)
    content = (cache / f"{first.name}.arrow").read_bytes()
    assert build(sources, exact=True).to_pybytes() == content
    with monkeypatch.context() as patch:
        patch.setattr(lists, "build", None)
        assert open_lists(sources, exact=True).name == first.name
    with open(sources[0].path, "a") as file:
        file.write("third.test\n")
    second = open_lists(sources, exact=True)
    assert second.name != first.name and "third.test" in second.domains and "third.test" not in first.domains
    assert (cache / f"{first.name}.arrow").read_bytes() == content


def test_two_processes_build_one_file(cache: Path, sources: list[ListFile]) -> None:
    code = (
        "import sys; from corpusmill.ingest.urls.lists import ListFile; from corpusmill.ingest.urls.lists import open_lists;"
        "lists = open_lists([ListFile('domains', sys.argv[1])], True); print(lists.name, len(lists.domains.values))"
    )
    Path(sources[0].path).write_text("".join(f"{number}.test\n" for number in range(200_000)))
    command = [sys.executable, "-c", code, sources[0].path]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0].strip() for process in started}
    (said_once,) = said
    name, count = said_once.split()
    assert count == "200000" and sorted(path.name for path in cache.iterdir()) == [f"{name}.{end}" for end in ("arrow", "lock", "xxh3")]


def test_a_damaged_file_is_built_anew(cache: Path, sources: list[ListFile]) -> None:
    path = cache / f"{open_lists(sources, exact=True).name}.arrow"
    whole, flipped = path.read_bytes(), path.read_bytes().replace(b"w", b"v")
    for damaged, content in [(path, b""), (path, whole[:-1]), (path, flipped), (path.with_suffix(".xxh3"), b"\xff")]:
        damaged.write_bytes(content)
        assert open_lists(sources, exact=True).name == path.stem and path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "none.txt", "none.txt: no such file"),
        (b"a.test\nb\xff.test\n", "latin.txt", "latin.txt: line 2 of this list of domains is not UTF-8"),
        (b"a.test\n", "no.gz", "no.gz: this list of domains can't be read"),
    ],
)
def test_a_list_that_can_not_be_read_is_one_sentence(tmp_path: Path, cache: Path, content, name: str, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_lists([ListFile("domains", str(tmp_path / name))], exact=True)
