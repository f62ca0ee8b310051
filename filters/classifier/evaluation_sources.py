"""What `corpusmill classifier evaluate` is asked to measure, as sources of examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from corpusmill.filters.classifier.answers import NO, YES, count_values
from corpusmill.filters.classifier.card import Classifier
from corpusmill.filters.classifier.from_options import source_names
from corpusmill.filters.classifier.rows import find_files
from corpusmill.filters.classifier.spec import Source
from corpusmill.pipeline.errors import InputError

COMMAND = "classifier evaluate"


def labelled_sources(
    classifier: Classifier, files: Sequence[str], columns: Sequence[str], text_column: str, positive: str | None, label: str | None
) -> list[Source]:
    """Files with columns of answers, a source each. `columns`: names, or LABEL=NAME for columns of 0 and 1 of a label each.

    Without LABEL a value means what it meant in the classifier's training, where that had a column of this name; with `positive` that value
    is yes to `label` and all others no; else values are the names of labels, or 1 and 0.
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
    classifier: Classifier, positive: Sequence[str], negative: Sequence[str], text_column: str, label: str | None
) -> list[Source]:
    """Files whose texts are all yes, or all no, to one label."""
    label = only_label(classifier, label)
    given = [*positive, *negative]
    return [
        _source(name, path, {"text_column": text_column, "answers": {label: int(place < len(positive))}})
        for place, (path, name) in enumerate(zip(given, source_names(given), strict=True))
    ]


def only_label(classifier: Classifier, label: str | None) -> str:
    """The label that is asked for: the classifier's only one where none is named."""
    labels = [head.label for head in classifier.heads]
    if label is None and len(labels) > 1:
        raise InputError(f"{COMMAND}: {classifier.name} has several labels; say which with --label ({', '.join(labels)}).")
    return check_label(classifier, labels[0] if label is None else label)


def check_label(classifier: Classifier, label: str) -> str:
    """The label itself. Raises InputError where the classifier has none of that name."""
    labels = [head.label for head in classifier.heads]
    if label not in labels:
        raise InputError(f"{COMMAND}: {classifier.name} has no label {label!r} (it has {', '.join(labels)}).")
    return label


def _source(name: str, path: str, options: Mapping[str, Any]) -> Source:
    try:
        return Source(name=name, files=(path,), **options)
    except ValidationError as error:
        raise InputError(f"{COMMAND}: {path}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error


def _values(
    classifier: Classifier, files: Sequence[str], column: str, positive: str | None, label: str | None
) -> dict[str, dict[str, int]]:
    """What each value of a label column says; empty where values are labels' names, or 1 and 0 of the only label."""
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


def _trained_values(classifier: Classifier, column: str) -> dict[str, dict[str, int]]:
    """What the values of a column meant in the training, as its card has it, where all its sources agree."""
    spec = classifier.card.get("spec")
    sources = spec.get("sources") if isinstance(spec, dict) else None
    found: dict[str, dict[str, int]] = {}
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and source.get("label_column") == column:
            for value, answers in (source.get("values") or {}).items():
                if found.setdefault(value, answers) != answers:
                    raise InputError(f"{COMMAND}: in the training {column!r} {value} meant one thing here, another there; give a --spec.")
    return found
