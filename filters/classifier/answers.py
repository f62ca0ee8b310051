"""From a row's label columns to its answers: yes, no or unknown to each label."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corpusmill.filters.classifier.rows import File, read_rows
from corpusmill.filters.classifier.spec import Source, value_key
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line

YES, NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))
#: More values than this are no classes.
MOST_VALUES = 100


class Answers:
    """The answers of a source's rows, as its spec reads them."""

    def __init__(self, source: Source, labels: Sequence[str]):
        self.source, self.labels = source, labels
        self.values: Mapping[str, Mapping[str, int]] = source.values or _default_values(labels)
        #: Of a list of values: what its absence says of each label.
        self.closed = {label: 0 for answers in self.values.values() for label, answer in answers.items() if answer}

    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [*([self.source.label_column] if self.source.label_column else []), *self.source.label_columns.values()]

    def of(self, place: str, row: Mapping[str, Any]) -> tuple[dict[str, int], int]:
        """`(answers, unknown)`: the known answers of a row by label, and how many of its columns are null."""
        found: dict[str, int] = {}
        unknown = 0
        for label, column in self.source.label_columns.items():
            value = cell(place, row, column)
            if value is None:
                unknown += 1
            elif (key := value_key(value)) in YES | NO:
                found[label] = int(key in YES)
            else:
                raise InputError(f"{place}: {column!r} is {_short(value)}, not 0 or 1.")
        if self.source.label_column:
            value = cell(place, row, self.source.label_column)
            if value is None:
                unknown += 1
            else:
                found = {**self._of_value(place, value), **found}
        return found, unknown

    def _of_value(self, place: str, value: Any) -> dict[str, int]:
        if not isinstance(value, list):
            return dict(self._looked_up(place, value))
        found = dict(self.closed)
        for item in value:
            for label, answer in self._looked_up(place, item).items():
                found[label] = max(answer, found.get(label, 0))
        return found

    def _looked_up(self, place: str, value: Any) -> Mapping[str, int]:
        key = value_key(value)
        if key not in self.values:
            known = ", ".join(list(self.values)[:10])
            raise InputError(f"{place}: the label {_short(value)} is unknown (known are {known}).")
        return self.values[key]


def _default_values(labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Each label's own name says yes to it and no to all others; of a single label 1, true and yes say yes, 0, false and no say no."""
    found = {label: {other: int(other == label) for other in labels} for label in labels}
    if len(labels) == 1:
        found |= {key: {labels[0]: 1} for key in sorted(YES)} | {key: {labels[0]: 0} for key in sorted(NO)}
    return found


def cell(place: str, row: Mapping[str, Any], column: str) -> Any:
    """A row's value in a column. Raises InputError where the row lacks it."""
    if column not in row:
        raise InputError(f"{place}: has no column {column!r} (it has {', '.join(safe_line(name, 40) for name in row) or 'none'}).")
    return row[column]


def _short(value: Any) -> str:
    return safe_line(repr(value), 60)


def count_values(files: Sequence[File], column: str) -> tuple[Counter[str], dict[str, Any], bool]:
    """`(counts, values, many)` of a label column: how often each value occurs by its key, the values themselves, and whether rows hold
    lists of values."""
    counts: Counter[str] = Counter()
    values: dict[str, Any] = {}
    many = False
    for value, place in _cells(files, column):
        many |= isinstance(value, list)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, list | dict):
                raise InputError(f"{place}: {column!r} is {_short(value)}, which names no class.")
            counts[key := value_key(item)] += 1
            values.setdefault(key, item)
        if len(counts) > MOST_VALUES:
            raise InputError(f"{place}: {column!r} has more than {MOST_VALUES} values, so it names no classes.")
    return counts, values, many


def _cells(files: Sequence[File], column: str) -> Iterator[tuple[Any, str]]:
    for file in files:
        for place, row in read_rows(file, [column]):
            value = cell(place, row, column)
            if value is not None:
                yield value, place
