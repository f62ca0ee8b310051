"""From what a recipe names to a classifier on this disk: files are fetched, and a bare fastText model gets a description."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corpusmill.filters.classifier.card import FILE, Classifier, Head, read_classifier
from corpusmill.filters.classifier.options import ModelOptions
from corpusmill.pipeline.cache import check_sha256, fetch, sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import is_remote

LABEL_PREFIX = "__label__"


@dataclass(frozen=True)
class Resolved:
    """A classifier and the folder in which its heads' files lie. `files` names these with their sha256 as found on disk."""

    classifier: Classifier
    folder: Path
    files: dict[str, str]


def column_name(text: str) -> str:
    """A label or a file's name as part of a column's name."""
    name = re.sub(r"\W+", "_", text.removeprefix(LABEL_PREFIX)).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def own_description(options: ModelOptions) -> Classifier | None:
    """The description that a classifier's folder has; None for a bare model. Of a URL, the description alone is fetched.

    Raises InputError.
    """
    assert options.model is not None
    if options.is_file:
        return None
    folder = _fetched_description(options) if is_remote(options.model) else Path(options.model)
    return _read(str(folder), _stamp(folder))


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        status = (folder / FILE).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


@lru_cache(16)
def _read(folder: str, stamp: tuple[int, int]) -> Classifier:
    """`stamp`: when the file was written, and its size, so that another content is read again."""
    return read_classifier(folder)


def _fetched_description(options: ModelOptions) -> Path:
    assert options.model is not None
    return fetch(f"{options.model.rstrip('/')}/{FILE}", options.sha256).parent


def name_of(options: ModelOptions) -> str:
    """The classifier's name, of which its columns' names are made."""
    if options.name:
        return options.name
    if options.convention:
        return options.convention.name
    described = own_description(options)
    assert options.model is not None
    return column_name(described.name if described else Path(urlsplit(options.model).path).stem)


def heads_of(options: ModelOptions) -> list[tuple[str, str]]:
    """`(label, fastText label)` of each probability that a bare model is asked for."""
    convention = options.convention
    values = options.values or (convention.values if convention else {})
    if values:
        return [(column_name(label), label) for label in values]
    if isinstance(options.positive, dict):
        return [(column_name(label), positive) for label, positive in options.positive.items()]
    positive = options.positive or (convention.positive if convention else None)
    assert positive is not None  # options._labels_have_a_meaning
    return [(name_of(options), positive)]


def resolve(options: ModelOptions) -> Resolved:
    """Sees to it that all files of the classifier are on this disk. Raises InputError in one sentence."""
    assert options.model is not None
    classifier = own_description(options)
    if classifier is None:
        return _bare(options)
    if options.window is not None:
        classifier = classifier.model_copy(update={"window": options.window})
    if is_remote(options.model):
        folder = _fetched_heads(options.model, classifier)
    else:
        folder = Path(options.model)
        check_sha256(folder / FILE, sha256_of(folder / FILE), options.sha256) if options.sha256 else None
    files = {head.file: sha256_of(folder / head.file) for head in classifier.heads}
    for head in classifier.heads:
        if files[head.file] != head.sha256:
            raise InputError(
                f"{folder / head.file}: it is another file than {FILE} means (its sha256 is {files[head.file]}, expected {head.sha256})."
            )
    return Resolved(classifier, folder, files)


def _fetched_heads(url: str, classifier: Classifier) -> Path:
    """Each file lies under its own sha256 in the cache; links in one folder stand for the folder of the URL."""
    from corpusmill.pipeline.cache import cache_folder

    folder = cache_folder() / "models" / "folders" / classifier.digest()
    folder.mkdir(parents=True, exist_ok=True)
    for head in classifier.heads:
        file, link = fetch(f"{url.rstrip('/')}/{head.file}", head.sha256), folder / head.file
        if link.resolve() != file.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    return folder


def _bare(options: ModelOptions) -> Resolved:
    """A fastText model's file with the description that its preset or the recipe gives."""
    assert options.model is not None
    path = fetch(options.model, options.sha256) if is_remote(options.model) else Path(options.model)
    found = sha256_of(path)
    check_sha256(path, found, options.sha256)
    convention = options.convention
    threshold = convention.threshold if convention and convention.threshold is not None else 0.5
    heads = tuple(
        Head(label=label, file=path.name, sha256=found, positive=positive, complement=options.complement, threshold=threshold)
        for label, positive in heads_of(options)
    )
    card: dict[str, Any] = {"model": options.model, "sha256": found}
    if convention:
        card |= {"preset": options.preset, "conventions": convention.source}
    name, form = name_of(options), options.form or (convention.form if convention else "plain")
    return Resolved(Classifier(name=name, form=form, window=options.window, heads=heads, card=card), path.parent, {path.name: found})
