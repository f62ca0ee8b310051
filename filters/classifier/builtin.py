"""The built-in classifier, which is trained at first use from registry packages and kept in the user's cache."""

import hashlib
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from corpusmill.filters.classifier.card import FILE
from corpusmill.filters.classifier.corpora import CORPORA, PREFIX
from corpusmill.filters.classifier.options import BUILTIN, NO_MODEL
from corpusmill.filters.classifier.spec import TrainingSpec, read_spec
from corpusmill.filters.classifier.train import train_classifier
from corpusmill.pipeline.cache import cache_folder, made
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import CLASSIFIERS, require
from corpusmill.pipeline.names import instead_of

FOLDER = "classifiers"  # folder in the user's cache
#: Libraries that can change a model's bytes or its training texts.
LIBRARIES = ("fasttext-community", "mwparserfromhell", "selectolax", "webencodings")


def builtin(name: str, on_message: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the folder of a built-in classifier (card.py); trains it where it is missing or damaged, a minute on two cores.

    The folder's name has a digest of the spec, the data and the code, so another version of these has another folder. Several processes may
    call it at once: one trains, the others wait. Raises InputError in one sentence.
    """
    if name not in BUILTIN:
        raise InputError(f"{name}: {NO_MODEL.get(name, f'no such folder or built-in classifier{instead_of(name, BUILTIN)}')}.")
    require(name, *CLASSIFIERS)
    spec = read_spec([name])
    folder = cache_folder() / FOLDER / f"{name}-{builtin_key(spec)}"

    def train() -> None:
        on_message(f"{name}: trains the built-in classifier from registry packages, once.")
        shutil.rmtree(folder, ignore_errors=True)
        train_classifier(spec, folder, on_message)

    return made(folder / FILE, folder, train).parent


def builtin_key(spec: TrainingSpec) -> str:
    """Returns 16 hex digits that depend on the spec, its corpora, and the code that trains."""
    sha = hashlib.sha256(canonical_json(spec.model_dump(mode="json")).encode())
    for path in (path for source in spec.sources for path in source.files):
        sha.update(CORPORA[path.removeprefix(PREFIX)].key().encode())
    for code in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(code.name.encode() + b"\0" + code.read_bytes())
    for library in LIBRARIES:
        sha.update(f"{library} {metadata.version(library)}\n".encode())
    return sha.hexdigest()[:16]
