"""The spec that the options of `corpusmill classifier train` stand for."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpusmill.filters.classifier.answers import NO, YES, count_values
from corpusmill.filters.classifier.rows import find_files
from corpusmill.filters.classifier.spec import LABEL, RESERVED, TrainingSpec, make_spec, name_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import RUN_FILE
from corpusmill.pipeline.safe import safe_line


def spec_of_data(
    data: Sequence[str], text_column: str, label_column: str, positive: str | None, options: dict[str, Any]
) -> tuple[TrainingSpec, str]:
    """`(spec, what was taken for what)` of labelled files: each input is a source.

    Two values: one label, whose yes is `positive`, else the greater value in sort order. More, or lists of values: a label each.
    """
    files = [file for given in data for file in find_files(given, ".")]
    for file in files:
        if file.format not in ("jsonl", "parquet"):
            raise InputError(f"{file.path}: a text file has no column {label_column!r}; give it with --positive or --negative.")
    counts, values, many = count_values(files, label_column)
    where = ", ".join(data[:3])
    if not counts:
        raise InputError(f"{where}: no row has a value in {label_column!r}.")
    names = sorted(counts, key=lambda key: _sort_key(values[key]))
    shown = [safe_line(name, 40) for name in names]
    if positive is not None and positive not in counts:
        raise InputError(
            f"--positive-label {positive}: no row of {where} has that value in {label_column!r} (it has {', '.join(shown[:10])})."
        )
    if positive is None and len(names) == 1 and not many:
        raise InputError(f"{where}: all rows have the value {shown[0]} in {label_column!r}; a classifier needs two classes.")
    if positive is not None or (len(names) == 2 and not many):
        yes = positive if positive is not None else names[-1]
        label = options["name"] if yes in YES | NO else _label(yes)
        mapping = {name: {label: int(name == yes)} for name in names}
        rest = ", ".join(name for name, key in zip(shown, names) if key != yes)
        said = f"{label_column} {safe_line(yes, 40)} is yes to the label {label}, {rest} {'is' if len(names) == 2 else 'are'} no"
        labels = [label]
    else:
        labels = [_label(name) for name in names]
        mapping = {name: {label: int(_label(name) == label) for label in labels} for name in names}
        if many:
            mapping = {name: {_label(name): 1} for name in names}
        said = f"each value of {label_column} is a label: {', '.join(labels)}"
    sources = [
        {"name": name, "files": [given], "text_column": text_column, "label_column": label_column, "values": mapping}
        for given, name in zip(data, source_names(data))
    ]
    return make_spec({**options, "labels": labels, "sources": sources}, "classifier train"), said


def spec_of_classes(positive: Sequence[str], negative: Sequence[str], text_column: str, options: dict[str, Any]) -> TrainingSpec:
    """The spec of files whose examples are all yes, or all no, to one label, which has the classifier's name."""
    label = options["name"]
    names = source_names([*positive, *negative])
    sources = [
        {"name": name, **_place(given), "text_column": text_column, "answers": {label: int(place < len(positive))}}
        for place, (given, name) in enumerate(zip([*positive, *negative], names))
    ]
    return make_spec({**options, "labels": [label], "sources": sources}, "classifier train")


def _place(given: str) -> dict[str, Any]:
    """An input of a spec's source: a run's folder, or files."""
    return {"run": given} if (Path(given) / RUN_FILE).is_file() else {"files": [given]}


def source_names(given: Sequence[str]) -> list[str]:
    """A name for each input: its last part, and a number where two have the same."""
    names: list[str] = []
    for path in given:
        name = Path(path.rstrip("/")).name or path
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name} ({number})", number + 1
        names.append(unique)
    return names


def classifier_name(output: str | Path) -> str:
    """A folder's name as a classifier's."""
    return name_of(Path(output).absolute())


def _label(value: str) -> str:
    """A value of a label column as a label's name."""
    label = re.sub(r"[^A-Za-z0-9_-]+", "_", value).strip("_-")[:64]
    if not re.match(LABEL, label):
        raise InputError(f"{value!r} can't name a label: give a spec with `values`, which says what each value means.")
    return f"{label}_label" if label in RESERVED else label


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers by size, before texts."""
    if isinstance(value, bool | int | float):
        return False, float(value)
    try:
        return False, float(value)
    except (TypeError, ValueError):
        return True, str(value)
