"""Turns the options of `corpusmill classifier train` into a spec, and those of `evaluate` into sources of examples."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corpusmill.filters.classifier.card import ClassifierDescription
from corpusmill.filters.classifier.examples import NO, YES, count_values, find_files
from corpusmill.filters.classifier.spec import LABEL, RESERVED, ExampleSource, TrainingSpec, make_spec, name_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.labels import LabelFile
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.run import RUN_FILE
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage


def spec_of_data(
    data: Sequence[str], text_column: str, label_column: str, positive: str | None, options: dict[str, Any]
) -> tuple[TrainingSpec, str]:
    """Returns `(spec, a sentence on how values were read)` for labelled files. Each input is a source.

    Two values become one label: yes is `positive`, else the greater value in sort order. More values, or lists, become a label each.
    """
    files = [file for given in data for file in find_files(given, ".")]
    for file in files:
        if file.format not in ("jsonl", "parquet"):
            raise InputError(f"{file.path}: a text file has no column {label_column!r}; give it with --positive or --negative.")
    counts, values, many = count_values(files, label_column)
    where = ", ".join(data[:3])
    if not counts:
        raise InputError(f"{where}: no row has a value in {label_column!r}.")
    labels, mapping, labels_used = _meanings(counts, values, many, label_column, where, positive, options["name"])
    sources = [
        {"name": name, "files": [given], "text_column": text_column, "label_column": label_column, "values": mapping}
        for given, name in zip(data, source_names(data))
    ]
    return make_spec({**options, "labels": labels, "sources": sources}, "classifier train"), labels_used


def spec_of_labels(runs: Sequence[str], positive: str | None, options: dict[str, Any]) -> tuple[TrainingSpec, str]:
    """Returns `(spec, a sentence on how labels were read)` for runs whose documents people have labelled. Each run is a source; labels are
    read as the values of `spec_of_data`."""
    files = [LabelFile(Storage(run)) for run in runs]
    if unknown := [run for run in runs if not Storage(run).exists(RUN_FILE)]:
        raise InputError(not_a_run(unknown[0]))
    counts = Counter(label for file in files for label in file.read().by_text().values() if label is not None)
    where = ", ".join(runs[:3])
    if not counts:
        raise InputError(f"{where}: nobody has labelled a document of this run.")
    labels, mapping, labels_used = _meanings(counts, {name: name for name in counts}, False, "label", where, positive, options["name"])
    sources = [{"name": name, "labelled": run, "values": mapping} for run, name in zip(runs, source_names(runs))]
    return make_spec({**options, "labels": labels, "sources": sources}, "classifier train"), labels_used


def _meanings(
    counts: Counter[str], values: dict[str, Any], many: bool, column: str, where: str, positive: str | None, name: str
) -> tuple[list[str], dict[str, dict[str, int]], str]:
    """Returns the labels, what each value says of them, and a sentence about that. `counts`, `values` and `many` are as `count_values`
    returns them; `name` is the classifier's."""
    names = sorted(counts, key=lambda key: _sort_key(values[key]))
    shown = [safe_line(key, 40) for key in names]
    if positive is not None and positive not in counts:
        raise InputError(f"--positive-label {positive}: no row of {where} has that value in {column!r} (it has {', '.join(shown[:10])}).")
    if positive is None and len(names) == 1 and not many:
        raise InputError(f"{where}: all rows have the value {shown[0]} in {column!r}; a classifier needs two classes.")
    if positive is not None or (len(names) == 2 and not many):
        yes = positive if positive is not None else names[-1]
        label = name if yes in YES | NO else _label(yes)
        mapping = {key: {label: int(key == yes)} for key in names}
        rest = ", ".join(one for one, key in zip(shown, names) if key != yes)
        labels_used = f"{column} {safe_line(yes, 40)} is yes to the label {label}, {rest} {'is' if len(names) == 2 else 'are'} no"
        labels = [label]
    else:
        labels = [_label(key) for key in names]
        mapping = {key: {label: int(_label(key) == label) for label in labels} for key in names}
        if many:
            mapping = {key: {_label(key): 1} for key in names}
        labels_used = f"each value of {column} is a label: {', '.join(labels)}"
    return labels, mapping, labels_used


def spec_of_classes(positive: Sequence[str], negative: Sequence[str], text_column: str, options: dict[str, Any]) -> TrainingSpec:
    """Returns the spec for files whose examples are all yes, or all no, to one label, which has the classifier's name."""
    label = options["name"]
    names = source_names([*positive, *negative])
    sources = [
        {"name": name, **_place(given), "text_column": text_column, "answers": {label: int(place < len(positive))}}
        for place, (given, name) in enumerate(zip([*positive, *negative], names))
    ]
    return make_spec({**options, "labels": [label], "sources": sources}, "classifier train")


def _place(given: str) -> dict[str, Any]:
    """Returns an input as a key of a spec's source: a run's folder, or files."""
    return {"run": given} if (Path(given) / RUN_FILE).is_file() else {"files": [given]}


def source_names(given: Sequence[str]) -> list[str]:
    """Returns a name for each input: the last part of its path, with a number if two are the same."""
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
    """Returns a folder's name in the form of a classifier's name."""
    return name_of(Path(output).absolute())


def _label(value: str) -> str:
    """Returns a value of a label column in the form of a label's name."""
    label = re.sub(r"[^A-Za-z0-9_-]+", "_", value).strip("_-")[:64]
    if not re.match(LABEL, label):
        raise InputError(f"{value!r} can't name a label: give a spec with `values`, which says what each value means.")
    return f"{label}_label" if label in RESERVED else label


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Sorts numbers by size, before texts."""
    if isinstance(value, bool | int | float):
        return False, float(value)
    try:
        return False, float(value)
    except (TypeError, ValueError):
        return True, str(value)


# ---- The sources of examples for `corpusmill classifier evaluate`

COMMAND = "classifier evaluate"


def labelled_sources(
    classifier: ClassifierDescription,
    files: Sequence[str],
    columns: Sequence[str],
    text_column: str,
    positive: str | None,
    label: str | None,
) -> list[ExampleSource]:
    """Returns a source for each file with columns of answers. `columns`: names, or LABEL=NAME for a column of 0 and 1 for each label.

    The values of a column without LABEL are read in one of four ways. With `positive`, that value is yes to `label` and all others are no.
    With `label` alone, the label's name or 1 is yes and 0 is no. If the classifier's training had a column of this name, its values have
    the same meaning. Else the values are names of labels, or 1 and 0.
    """
    named = dict(column.split("=", 1) for column in columns if "=" in column)
    plain = [column for column in columns if "=" not in column]
    if len(plain) > 1 or (plain and named):
        raise InputError(f"{COMMAND}: give one --label-column, or several as LABEL=NAME.")
    for name in named:
        check_label(classifier, name)
    options: dict[str, Any] = {"text_column": text_column, "label_columns": named}
    if plain:
        options |= {"label_column": plain[0], "values": _values(classifier, files, plain[0], positive, label)}
    elif positive is not None:
        raise InputError(f"{COMMAND}: --positive-label has no meaning without a --label-column.")
    return [_source(name, given, options) for given, name in zip(files, source_names(files), strict=True)]


def classed_sources(
    classifier: ClassifierDescription, positive: Sequence[str], negative: Sequence[str], text_column: str, label: str | None
) -> list[ExampleSource]:
    """Returns a source for each file whose texts are all yes, or all no, to one label."""
    label = only_label(classifier, label)
    given = [*positive, *negative]
    return [
        _source(name, path, {"text_column": text_column, "answers": {label: int(place < len(positive))}})
        for place, (path, name) in enumerate(zip(given, source_names(given), strict=True))
    ]


def only_label(classifier: ClassifierDescription, label: str | None) -> str:
    """Returns `label`, or the classifier's only label if `label` is None. Raises InputError if there are several, or none of that name."""
    labels = [head.label for head in classifier.heads]
    if label is None and len(labels) > 1:
        raise InputError(f"{COMMAND}: {classifier.name} has several labels; say which with --label ({', '.join(labels)}).")
    return check_label(classifier, labels[0] if label is None else label)


def check_label(classifier: ClassifierDescription, label: str) -> str:
    """Returns the label. Raises InputError if the classifier has no such label."""
    labels = [head.label for head in classifier.heads]
    if label not in labels:
        raise InputError(f"{COMMAND}: {classifier.name} has no label {label!r} (it has {', '.join(labels)}).")
    return label


def _source(name: str, path: str, options: Mapping[str, Any]) -> ExampleSource:
    try:
        return ExampleSource(name=name, files=(path,), **options)
    except ValidationError as error:
        raise InputError(f"{COMMAND}: {path}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error


def _values(
    classifier: ClassifierDescription, files: Sequence[str], column: str, positive: str | None, label: str | None
) -> dict[str, dict[str, int]]:
    """Returns the answers for each value of a label column; empty if the values are names of labels, or 1 and 0 for the only label."""
    if positive is not None:
        counts, _, _ = count_values([file for given in files for file in find_files(given, ".")], column)
        if positive not in counts:
            raise InputError(
                f"{COMMAND}: --positive-label {positive}: no row has that value in {column!r} (it has {', '.join(sorted(counts)[:10])})."
            )
        label = only_label(classifier, label)
        return {value: {label: int(value == positive)} for value in counts}
    if label is not None:
        label = check_label(classifier, label)
        return {value: {label: 1} for value in (label, *sorted(YES))} | {value: {label: 0} for value in sorted(NO)}
    return _trained_values(classifier, column)


def _trained_values(classifier: ClassifierDescription, column: str) -> dict[str, dict[str, int]]:
    """Returns what the values of a column meant in the training, from the card. Raises InputError if the training's sources disagree."""
    spec = classifier.card.get("spec")
    sources = spec.get("sources") if isinstance(spec, dict) else None
    found: dict[str, dict[str, int]] = {}
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and source.get("label_column") == column:
            for value, answers in (source.get("values") or {}).items():
                if found.setdefault(value, answers) != answers:
                    raise InputError(f"{COMMAND}: in the training {column!r} {value} meant one thing here, another there; give a --spec.")
    return found
