"""Exports the labels of a run, and imports them: as JSONL, as tasks of Label Studio, and as records of Argilla.

jsonl: an object for each label, with `id`, `label`, `who`, `when`, `text_sha256`, `text` (null where the run no longer has it).
label-studio: a JSON list of tasks with annotations, for a project with `<Text name="text" value="$text"/>` and `<Choices name="label"
toName="text">`. Label Studio's own export (JSON) is read, too: its annotators become `who`.
argilla: the `records.json` that `rg.Dataset.to_disk` writes and `from_disk` reads, for a field `text` and a label question `label`. Argilla
names its users by UUID, so each person gets one that is made from the name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from corpusmill.filters.labels import DocumentLabel, LabelFile, checked_name, hash_of, labelled_texts, now, texts_of
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.run import RUN_FILE
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage

LabelFormat = Literal["jsonl", "label-studio", "argilla"]
#: The question, or the control, that holds the label.
QUESTION = "label"


@dataclass(frozen=True)
class FoundLabel:
    """A label of a file. What the file does not say is None. `place`: the entry of the file, for messages."""

    place: str
    id: str
    label: str
    who: str | None
    when: datetime | None
    text_sha256: str | None
    text: str | None


# ---- export ------------------------------------------------------------------------------------


def export_labels(folder: str, format: LabelFormat) -> tuple[str, int, int]:
    """Returns the content of a file with the run's labels, how many it has, and how many are left out because their text has changed.

    Raises InputError if the folder is no run, or its labels can't be read.
    """
    storage = _run(folder)
    labels = LabelFile(storage).read().given.values()
    texts = {(id_, digest): text for id_, digest, text in labelled_texts(storage, {(label.id, label.text_sha256) for label in labels})}
    by_text: dict[tuple[str, str], list[DocumentLabel]] = {}
    for label in sorted(labels, key=lambda label: (label.id, label.text_sha256, label.when, label.who)):
        by_text.setdefault((label.id, label.text_sha256), []).append(label)
    if format == "jsonl":
        lines = [_line(label, texts.get(key)) for key, given in by_text.items() for label in given]
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), len(lines), 0
    make = _task if format == "label-studio" else _record
    made = [make(given, texts[key]) for key, given in by_text.items() if key in texts]
    there = sum(len(given) for key, given in by_text.items() if key in texts)
    return f"{json.dumps(made, ensure_ascii=False, indent=1)}\n", there, len(labels) - there


def _line(label: DocumentLabel, text: str | None) -> dict[str, Any]:
    when, digest = label.when.isoformat(), label.text_sha256
    return {"id": label.id, "label": label.label, "who": label.who, "when": when, "text_sha256": digest, "text": text}


def _task(given: list[DocumentLabel], text: str) -> dict[str, Any]:
    annotations = [
        {
            "result": [
                {
                    "from_name": QUESTION, "to_name": "text", "type": "choices", "value": {"choices": [label.label]},
                    "meta": {"who": label.who, "when": label.when.isoformat()},
                }
            ]
        }
        for label in given
    ]  # fmt: skip
    return {"data": {"text": text, "id": given[0].id, "text_sha256": given[0].text_sha256}, "annotations": annotations}


def _record(given: list[DocumentLabel], text: str) -> dict[str, Any]:
    return {
        "id": f"{given[0].id}/{given[0].text_sha256[:12]}",
        "fields": {"text": text},
        "metadata": {
            "document": given[0].id, "text_sha256": given[0].text_sha256,
            "who": [label.who for label in given], "when": [label.when.isoformat() for label in given],
        },
        "responses": {QUESTION: [{"value": label.label, "user_id": _user(label.who)} for label in given]},
        "suggestions": {},
        "vectors": {},
    }  # fmt: skip


def _user(who: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"corpusmill:{who}"))


# ---- import ------------------------------------------------------------------------------------


def import_labels(folder: str, path: str, who: str) -> tuple[int, list[str]]:
    """Adds the labels of a file to a run. `who`: for labels of which the file does not say who gave them.

    Returns how many labels were added, and the ids of documents that the run does not have, whose labels are left out. A label without a
    hash and a text is one of the text that the run has. Raises InputError, and then adds nothing.
    """
    storage = _run(folder)
    given = list(read_labels(path))
    texts = {id_: hash_of(text) for id_, text in reversed(list(texts_of(storage, {found.id for found in given})))}
    labels = [
        DocumentLabel(
            found.id,
            _checked(found, found.label),
            _checked(found, found.who or who, "a person's name"),
            found.when or now(),
            found.text_sha256 or (texts[found.id] if found.text is None else hash_of(found.text)),
        )
        for found in given
        if found.id in texts
    ]
    LabelFile(storage).change(lambda before: before.with_labels(labels))
    return len(labels), sorted({found.id for found in given} - texts.keys())


def _checked(found: FoundLabel, name: str, what: str = "the name of a label") -> str:
    try:
        return checked_name(name, what)
    except InputError as error:
        raise InputError(f"{found.place}: {error}") from error


def read_labels(path: str) -> Iterator[FoundLabel]:
    """Yields the labels of a file, whose form tells its format. Raises InputError with the place of the first entry that is none."""
    try:
        content = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error
    if content.lstrip().startswith("["):
        entries: Iterable[tuple[str, Any]] = ((f"{path}: entry {number}", entry) for number, entry in enumerate(_json(path, content), 1))
    else:
        lines = ((f"{path}:{number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip())
        entries = ((place, _json(place, line)) for place, line in lines)
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise InputError(f"{place}: not an object.")
        try:
            yield from _labels_of(place, entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(
                f"{place}: no label of a format that can be read ({type(error).__name__}: {safe_line(str(error), 100)})."
            ) from error


def _json(place: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{place}: not JSON ({safe_line(str(error), 100)}).") from error


def _labels_of(place: str, entry: Mapping[str, Any]) -> Iterator[FoundLabel]:
    if "annotations" in entry:
        data = entry["data"]
        for annotation in entry["annotations"]:
            for item in annotation["result"] if not annotation.get("was_cancelled") else ():
                if item["type"] == "choices":
                    meta = item.get("meta") or {}
                    who = meta.get("who") or _annotator(annotation.get("completed_by"))
                    when = meta.get("when") or annotation.get("updated_at") or annotation.get("created_at")
                    (label,) = item["value"]["choices"]
                    yield _found(place, data["id"], label, who, when, data.get("text_sha256"), data.get("text"))
    elif "fields" in entry:
        metadata, responses = entry.get("metadata") or {}, entry["responses"]
        people = dict(zip(map(_user, metadata.get("who", [])), zip(metadata.get("who", []), metadata.get("when", []))))
        question = QUESTION if QUESTION in responses or len(responses) != 1 else next(iter(responses))
        for response in responses.get(question, ()):
            who, when = people.get(response["user_id"], (response["user_id"], None))
            text = entry["fields"].get("text")
            yield _found(place, metadata.get("document", entry["id"]), response["value"], who, when, metadata.get("text_sha256"), text)
    else:
        yield _found(place, entry["id"], entry["label"], entry.get("who"), entry.get("when"), entry.get("text_sha256"), entry.get("text"))


def _annotator(completed_by: Any) -> str | None:
    """Returns the annotator of Label Studio: an address, or the number of a user."""
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by["id"])
    return None if completed_by is None else f"user {completed_by}"


def _found(place: str, id_: Any, label: Any, who: Any, when: Any, digest: Any, text: Any) -> FoundLabel:
    for value in (id_, label, who or "", when or "", digest or "", text or ""):
        if not isinstance(value, str):
            raise TypeError(f"{safe_line(repr(value), 40)} is no text")
    moment = datetime.fromisoformat(when) if when else None
    if moment is not None:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return FoundLabel(place, id_, label, who or None, moment, digest or None, text)


def _run(folder: str) -> Storage:
    storage = Storage(folder)
    if not storage.exists(RUN_FILE):
        raise InputError(not_a_run(folder))
    return storage
