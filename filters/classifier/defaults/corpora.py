"""The corpora that specs name `package://mails-1.jsonl` and the like."""

from pathlib import Path

from corpusmill.filters.classifier.defaults.contrasts import CONTRASTS
from corpusmill.filters.classifier.defaults.sources import TEXTS
from corpusmill.filters.classifier.defaults.weak_labels import WEAK
from corpusmill.pipeline.errors import InputError

PREFIX = "package://"
CORPORA = {corpus.name: corpus for corpus in (*TEXTS, *WEAK, CONTRASTS)}


def corpus_path(name: str) -> Path:
    """The path of a corpus in the user's cache, made if need be.

    Raises InputError in one sentence where there is no such corpus, or a package can't be had.
    """
    if name not in CORPORA:
        raise InputError(f"{PREFIX}{name}: there is no such corpus (there are {', '.join(CORPORA)}).")
    return CORPORA[name].path()
