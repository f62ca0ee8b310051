"""The labels that people give to the documents of a run: `labels.parquet` in its folder.

A row says that a person (`who`) has given a document (`id`) one label, when (UTC), and the sha256 of the text that they have read. A person
has one label for a document; labels of two people are both kept. The file's metadata holds the names of labels in the order of their keys.

The file is written whole, by compare-and-swap: of two processes that write at once, the second reads what the first has written and adds
its own change to it. A file that can't be read is never replaced.
"""

import getpass
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.lease import SwapFile
from corpusmill.pipeline.safe import safe_line
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
class Label:
    """The label that a person has given to a document. `when`: in UTC. `text_sha256`: the hash (hex) of the text that they have read."""

    id: str
    label: str
    who: str
    when: datetime
    text_sha256: str


@dataclass(frozen=True)
class Labels:
    """The labels of a run, by document and person, and the names in the order of their keys."""

    names: tuple[str, ...] = FIRST_NAMES
    given: Mapping[tuple[str, str], Label] = field(default_factory=dict)

    def with_labels(self, new: Iterable[Label]) -> "Labels":
        """Returns these labels and new ones. Where a person has two labels for a document, the later one counts. Names that are new are
        added as far as there are keys."""
        given, names = dict(self.given), list(self.names)
        for label in new:
            before = given.get((label.id, label.who))
            if before is None or before.when <= label.when:
                given[label.id, label.who] = label
            if label.label not in names and len(names) < MOST_NAMES:
                names.append(label.label)
        return Labels(tuple(names), given)

    def without(self, id_: str, who: str) -> "Labels":
        """Returns these labels without a person's label for a document."""
        return replace(self, given={key: label for key, label in self.given.items() if key != (id_, who)})

    def of(self, id_: str) -> list[Label]:
        """Returns the labels of a document."""
        return [label for label in self.given.values() if label.id == id_]

    def by_majority(self) -> dict[str, str | None]:
        """Returns for each document the label that most people gave it; None where two labels have as many votes."""
        votes: dict[str, dict[str, int]] = {}
        for label in self.given.values():
            counts = votes.setdefault(label.id, {})
            counts[label.label] = counts.get(label.label, 0) + 1
        return {id_: _winner(counts) for id_, counts in votes.items()}


def _winner(counts: dict[str, int]) -> str | None:
    most = max(counts.values())
    winners = [label for label, count in counts.items() if count == most]
    return winners[0] if len(winners) == 1 else None


class LabelFile:
    """The labels of the run in `storage`. All methods raise InputError with one sentence if the file can't be read or written."""

    def __init__(self, storage: Storage):
        self.path = storage.path(LABELS)
        self._file = SwapFile(storage, LABELS, durable=True)

    def read(self) -> Labels:
        """Returns the labels; none where there is no file."""
        return self._read()[0]

    def change(self, edit: Callable[[Labels], Labels]) -> Labels:
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

    def _read(self) -> tuple[Labels, str | None]:
        try:
            found = self._file.read()
        except CorpusmillError:
            raise
        except OSError as error:
            raise InputError(f"{self.path}: can't be read ({error.strerror or error}).") from error
        return (self._parsed(found[0]), found[1]) if found else (Labels(), None)

    def _parsed(self, content: bytes) -> Labels:
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
        rows = [Label(**row) for row in table.to_pylist()]
        try:
            names = json.loads((table.schema.metadata or {}).get(NAMES, b"null"))
            known = FIRST_NAMES if names is None else tuple(checked_name(name) for name in names[:MOST_NAMES])
        except (ValueError, TypeError, KeyError, RecursionError, InputError) as error:
            raise InputError(f"{self.path}: its metadata has no names of labels.") from error
        return Labels(known, {(label.id, label.who): label for label in rows})


def _as_parquet(labels: Labels) -> bytes:
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
