"""The labels that people give to the documents of a run: `labels.parquet` in its folder.

A row says that a person (`who`) has given a document (`id`) one label, when (UTC), and the sha256 of the text that they have read. A person
has one label for a document; labels of two people are both kept. The file's metadata holds the names of labels in the order of their keys.

The file is written whole, by compare-and-swap: of two processes that write at once, the second reads what the first has written and adds
its own change to it. A file that can't be read is never replaced.
"""

import getpass
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.lease import SwapFile
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.runner import DATA_STAGES
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.storage import Storage

LABELS = "labels.parquet"
COLUMNS = ("id", "label", "who", "when", "text_sha256")
SCHEMA = pa.schema([(name, pa.timestamp("us", "UTC") if name == "when" else pa.string()) for name in COLUMNS])
#: The key of the file's metadata under which the names stand, and the names of a run without labels.
NAMES, FIRST_NAMES = b"corpusmill.labels", ("good", "bad")
#: Names of labels at most (the keys 1 to 9), and characters of a name of a label or a person.
MOST_NAMES, LONGEST = 9, 64
#: How often a change is made again because another process has written the file meanwhile.
TRIES = 50


@dataclass(frozen=True)
class DocumentLabel:
    """The label that a person has given to a document. `when`: in UTC. `text_sha256`: the hash (hex) of the text that they have read."""

    id: str
    label: str
    who: str
    when: datetime
    text_sha256: str


@dataclass(frozen=True)
class DocumentLabels:
    """The labels of a run, by document and person, and the names in the order of their keys."""

    names: tuple[str, ...] = FIRST_NAMES
    given: Mapping[tuple[str, str], DocumentLabel] = field(default_factory=dict)

    def with_labels(self, new: Iterable[DocumentLabel]) -> "DocumentLabels":
        """Returns these labels and new ones. Where a person has two labels for a document, the later one counts. Names that are new are
        added as far as there are keys."""
        given, names = dict(self.given), list(self.names)
        for label in new:
            before = given.get((label.id, label.who))
            if before is None or before.when <= label.when:
                given[label.id, label.who] = label
            if label.label not in names and len(names) < MOST_NAMES:
                names.append(label.label)
        return DocumentLabels(tuple(names), given)

    def without(self, id_: str, who: str) -> "DocumentLabels":
        """Returns these labels without a person's label for a document."""
        return replace(self, given={key: label for key, label in self.given.items() if key != (id_, who)})

    def of(self, id_: str) -> list[DocumentLabel]:
        """Returns the labels of a document."""
        return [label for label in self.given.values() if label.id == id_]

    def by_document(self) -> dict[str, str | None]:
        """Returns for each document the label that most people gave it; None where two labels have as many votes."""
        counts: dict[str, Counter[str]] = {}
        for label in self.given.values():
            counts.setdefault(label.id, Counter())[label.label] += 1
        found: dict[str, str | None] = {}
        for id_, counter in counts.items():
            (first, most), *others = counter.most_common(2)
            found[id_] = None if others and others[0][1] == most else first
        return found


def labelled_texts(storage: Storage, wanted: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yields id, sha256 and text of the wanted texts (id, sha256) that a stage of the run has, each once."""
    left = set(wanted)
    for id_, text in texts_of(storage, {id_ for id_, _ in left}):
        digest = hash_of(text)
        if (id_, digest) in left:
            left.remove((id_, digest))
            yield id_, digest, text
        if not left:
            return


def texts_of(storage: Storage, ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields id and text of these documents, from every stage of the run that has them."""
    known = pa.array(sorted(ids), pa.string())
    for stage in DATA_STAGES:
        part = storage.child(stage)
        for row in Manifest(part, read_only=True).tasks.values():
            for output in row.outputs:
                if output.path.startswith("data/"):
                    for table in iter_tables(part, output.path, ["id", "text"]):
                        some = table.filter(pc.is_in(table["id"].cast(pa.string()), known))
                        yield from zip(some["id"].to_pylist(), some["text"].to_pylist(), strict=True)


class LabelFile:
    """The labels of the run in `storage`. All methods raise InputError with one sentence if the file can't be read or written."""

    def __init__(self, storage: Storage):
        self.path = storage.path(LABELS)
        self._file = SwapFile(storage, LABELS, durable=True)
        self._known: tuple[str, DocumentLabels] | None = None  # the version that was read last

    def read(self) -> DocumentLabels:
        """Returns the labels; none where there is no file."""
        return self._read()[0]

    def change(self, edit: Callable[[DocumentLabels], DocumentLabels]) -> DocumentLabels:
        """Replaces the labels by `edit(labels)` and returns them. `edit` is called again if another process has written meanwhile."""
        for _ in range(TRIES):
            labels, version = self._read()
            changed = edit(labels)
            if changed == labels:
                return labels
            try:
                if self._file.write(_as_parquet(changed), version) is not None:
                    return changed
            except CorpusmillError:
                raise
            except OSError as error:
                raise InputError(f"{self.path}: can't be written ({error.strerror or error}).") from error
        raise InputError(f"{self.path}: other processes keep writing it, so this change is not made; try again.")

    def _read(self) -> tuple[DocumentLabels, str | None]:
        try:
            found = self._file.read()
        except CorpusmillError:
            raise
        except OSError as error:
            raise InputError(f"{self.path}: can't be read ({error.strerror or error}).") from error
        if found is None:
            return DocumentLabels(), None
        content, version = found
        if self._known is None or self._known[0] != version:
            self._known = (version, self._parsed(content))
        return self._known[1], version

    def _parsed(self, content: bytes) -> DocumentLabels:
        try:
            table = pq.read_table(BytesIO(content))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: not a readable Parquet file ({str(error).splitlines()[0].rstrip('.')}).") from error
        if table.schema.remove_metadata() != SCHEMA:
            there = ", ".join(f"{safe_line(column.name, 40)} {column.type}" for column in table.schema)
            wanted = ", ".join(f"{column.name} {column.type}" for column in SCHEMA)
            raise InputError(f"{self.path}: has the columns {there}; labels have {wanted}.")
        if any(column.null_count for column in table.columns):
            raise InputError(f"{self.path}: has empty cells, so it is no file of labels.")
        rows = [DocumentLabel(**row) for row in table.to_pylist()]
        try:
            names = parse_json((table.schema.metadata or {}).get(NAMES, b"null"))
            known = FIRST_NAMES if names is None else tuple(checked_name(name) for name in names[:MOST_NAMES])
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise InputError(f"{self.path}: its metadata has no names of labels.") from error
        return DocumentLabels(known, {(label.id, label.who): label for label in rows})


def _as_parquet(labels: DocumentLabels) -> bytes:
    rows = [{name: getattr(label, name) for name in COLUMNS} for _, label in sorted(labels.given.items())]
    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({NAMES: json.dumps(labels.names).encode()})
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def checked_name(name: str, what: str = "the name of a label") -> str:
    """Returns the name of a label or a person. Raises InputError if it is empty or long, or has characters that can't be seen."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST or safe_line(name) != name:
        shown = safe_line(str(name), 40)
        raise InputError(f"{shown!r}: {what} has 1 to {LONGEST} characters, no control characters, and no spaces at its ends.")
    return name


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of labels. Raises InputError for a bad name, for two equal ones, and for none or too many."""
    found = tuple(checked_name(name) for name in names)
    if len(set(found)) < len(found) or not 0 < len(found) <= MOST_NAMES:
        raise InputError(f"A run has 1 to {MOST_NAMES} names of labels, all different.")
    return found


def login_name() -> str:
    """Returns the name under which the user of this process has logged in, for labels without another name."""
    try:
        return safe_line(getpass.getuser(), LONGEST) or "unknown"
    except (KeyError, OSError):
        return "unknown"


def now() -> datetime:
    return datetime.now(UTC)


def hash_of(text: str) -> str:
    """Returns the sha256 (hex) of a text as UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
