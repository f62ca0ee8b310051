"""What a list is made from: the files that datatrove ships, or files of the user's own."""

import gzip
import hashlib
import importlib.metadata
import importlib.util
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from corpusmill.ingest.urls.words import squeeze
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file

Kind = Literal["domains", "urls", "hard_words", "soft_words", "subwords"]
#: The kinds of which a file may hold millions: they are hashed.
LISTS: tuple[Kind, ...] = ("domains", "urls")
#: Where the library keeps its lists; the archive holds the files `domains` and `urls`.
ASSETS = "assets"
ARCHIVE = "url_filterblacklists*.tar.gz"
#: The kinds of words, and the library's file of each.
WORDS: dict[Kind, str] = {"hard_words": "banned_words.txt", "soft_words": "soft_banned_words.txt", "subwords": "banned_subwords.txt"}


@dataclass(frozen=True)
class Source:
    """A file of entries, one a line."""

    kind: Kind
    path: str
    member: str | None = None  # of the tar archive at `path`

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes of the file, decompressed; raises InputError where it can't be read."""
        with open_file(self.path) as file:
            try:
                if self.member:
                    with tarfile.open(fileobj=file, mode="r:gz") as archive:
                        inner = archive.extractfile(self.member)
                        if inner is None:
                            raise InputError(f"{self.path}: {self.member} in it is no file.")
                        with inner:
                            yield inner
                elif self.path.endswith(".gz"):
                    with gzip.open(file) as inflated:
                        yield inflated  # type: ignore[misc]
                else:
                    yield file
            except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
                raise InputError(f"{self.path}: this list of {self.kind} can't be read ({error}).") from error

    def entries(self) -> Iterator[str]:
        """The entries without comments, blank lines and surrounding spaces; words squeezed to letters and digits."""
        form: Callable[[str], str] = str.strip if self.kind in LISTS else squeeze
        with self.open() as file:
            for number, content in enumerate(file, 1):
                try:
                    line = content.decode()
                except UnicodeDecodeError as error:
                    raise InputError(f"{self.path}: line {number} of this list of {self.kind} is not UTF-8.") from error
                if number == 1:
                    line = line.removeprefix("\ufeff")
                entry = form(line)
                if entry and not line.startswith("#"):
                    yield entry


def shipped_sources() -> list[Source]:
    """The lists of the datatrove that is installed. Raises InputError where it has them no longer."""
    found = importlib.util.find_spec("datatrove")
    roots = list(found.submodule_search_locations or []) if found else []
    for folder in [Path(root) / ASSETS for root in roots]:
        archives = sorted(folder.glob(ARCHIVE))
        if archives and all((folder / name).is_file() for name in WORDS.values()):
            archive = str(archives[-1])
            words = [Source(kind, str(folder / name)) for kind, name in WORDS.items()]
            return [Source("domains", archive, "domains"), Source("urls", archive, "urls"), *words]
    version = importlib.metadata.version("datatrove") if found else "none"
    raise InputError(
        f"ingest.url_filter: the installed datatrove ({version}) ships no URL lists that are known here; "
        "set url_filter.shipped_lists to false, or install datatrove 0.10."
    )


def digest_of(sources: list[Source]) -> str:
    """sha256 (hex) of the kinds and the bytes of all files, whatever they are called."""
    sha = hashlib.sha256()
    by_path: dict[str, str] = {}
    for source in sources:
        if source.path not in by_path:
            with open_file(source.path) as file:
                by_path[source.path] = _digest(file)
        sha.update(f"{source.kind}\0{source.member or ''}\0{by_path[source.path]}\n".encode())
    return sha.hexdigest()


def _digest(file: IO[bytes]) -> str:
    sha = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sha.update(chunk)
    return sha.hexdigest()
