"""Labels of a run as lines of JSON, for other programs and from them: an object for each label, with `id`, `label`, `who`, `when`,
`text_sha256`, `text` (null where the run no longer has it). A file to read needs `id` and `label`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpusmill.filters.labels import DocumentLabel, LabelFile, checked_name, hash_of, labelled_texts, now, texts_of
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.run import RUN_FILE
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage

#: The fields of a line, which are texts.
FIELDS = ("id", "label", "who", "when", "text_sha256", "text")


def label_lines(folder: str) -> Iterator[str]:
    """Yields the run's labels by document, each as a line. Raises InputError if the folder is no run, or its labels can't be read."""
    storage = _run(folder)
    labels = sorted(LabelFile(storage).read().given.values(), key=lambda label: (label.id, label.text_sha256, label.when, label.who))
    texts = {(id_, digest): text for id_, digest, text in labelled_texts(storage, {(label.id, label.text_sha256) for label in labels})}
    for one in labels:
        values = (one.id, one.label, one.who, one.when.isoformat(), one.text_sha256, texts.get((one.id, one.text_sha256)))
        yield f"{json.dumps(dict(zip(FIELDS, values, strict=True)), ensure_ascii=False)}\n"


def read_labels_into(folder: str, path: str, who: str) -> tuple[int, list[str]]:
    """Adds the labels of a file to a run. `who`: for labels of which the file does not say who gave them.

    Returns how many labels were added, and the ids of documents that the run does not have, whose labels are left out. A label without a
    hash and a text is one of the text that the run has. Raises InputError, and then adds nothing.
    """
    storage = _run(folder)
    rows = list(_read(path))
    texts = {id_: hash_of(text) for id_, text in reversed(list(texts_of(storage, {row["id"] for _, row in rows})))}
    labels = [_label(place, row, texts[row["id"]], who) for place, row in rows if row["id"] in texts]
    LabelFile(storage).change(lambda before: before.with_labels(labels))
    return len(labels), sorted({row["id"] for _, row in rows} - texts.keys())


def _read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the object of each line. Raises InputError with the place of the first line that is no label."""
    try:
        content = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"{place}: not JSON ({safe_line(str(error), 100)}).") from error
            if not isinstance(row, dict) or not row.get("id") or not row.get("label"):
                raise InputError(f"{place}: not an object with id and label.")
            if wrong := next((name for name in FIELDS if not isinstance(row.get(name) or "", str)), None):
                raise InputError(f"{place}: {wrong} is no text.")
            yield place, row


def _label(place: str, row: dict[str, Any], known: str, who: str) -> DocumentLabel:
    """Returns the label of a line. `known`: the hash of the text that the run has."""
    try:
        when = datetime.fromisoformat(row["when"]) if row.get("when") else now()
        names = checked_name(row["label"], "the name of a label"), checked_name(row.get("who") or who, "a person's name")
    except (InputError, ValueError) as error:
        raise InputError(f"{place}: {safe_line(str(error), 300).rstrip('.')}.") from error
    text = row.get("text")
    digest = row.get("text_sha256") or (known if text is None else hash_of(text))
    return DocumentLabel(row["id"], *names, when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC), digest)


def _run(folder: str) -> Storage:
    storage = Storage(folder)
    if not storage.exists(RUN_FILE):
        raise InputError(not_a_run(folder))
    return storage
