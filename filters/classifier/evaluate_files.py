"""`corpusmill classifier evaluate`: what a classifier makes of labelled files that it may not have seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.evaluation import evaluate
from corpusmill.filters.classifier.examples import Examples, gather_examples
from corpusmill.filters.classifier.scorer import Scorer, load_heads
from corpusmill.filters.classifier.spec import Source
from corpusmill.filters.classifier.training_hashes import in_training
from corpusmill.pipeline.errors import InputError

#: Texts that are scored at a time.
BATCH = 2048


@dataclass(frozen=True)
class Judged:
    """`result` is what `--json` prints. `scores` (float64) and `answers` (int8, -1: unknown) by label, of n texts, and their sources."""

    result: dict[str, Any]
    scores: dict[str, npt.NDArray[np.float64]]
    answers: dict[str, npt.NDArray[np.int8]]
    source: list[str]


def evaluate_files(
    folder: str | Path, sources: Sequence[Source], base: str | Path = ".", unseen: bool = False, seed: int = 0, resamples: int = 1000
) -> Judged:
    """Scores the texts of `sources` (paths relative to `base`) and measures each label of the classifier in `folder`.

    `unseen` leaves out texts that it has learned from. Raises InputError in one sentence where there is nothing to measure.
    """
    classifier = read_classifier(folder)
    heads = load_heads(folder, classifier)
    labels = [head.label for head in heads]
    _check_labels(folder, labels, sources)
    examples = gather_examples(sources, base, labels)
    table = examples.table
    if not table.num_rows:
        raise InputError(f"{_named(examples)}: no text has an answer to {' or '.join(labels)}.")
    seen = in_training(folder, classifier.form, table["text"].combine_chunks())
    described = _training(seen, table)
    if unseen:
        table = _left(folder, table, seen)
    scores = dict(zip(labels, score_batches(Scorer(heads), table["text"]), strict=True))
    answers = {label: table[label].fill_null(-1).to_numpy().astype(np.int8) for label in labels}
    lengths = pc.utf8_length(table["text"]).to_numpy()
    measured = {
        head.label: evaluate(scores[head.label], answers[head.label], table["source"], lengths, head.threshold, seed, resamples)
        for head in heads
        if (answers[head.label] >= 0).any()
    }
    result = {
        "classifier": classifier.name, "digest": classifier.digest(), "texts": table.num_rows, "sources": _sources(examples),
        "in_training": described, "left_out": examples.table.num_rows - table.num_rows,
        "not_asked": [label for label in labels if label not in measured], "labels": measured,
    }  # fmt: skip
    return Judged(result, scores, answers, table["source"].to_pylist())


def _check_labels(folder: str | Path, labels: Sequence[str], sources: Sequence[Source]) -> None:
    for source in sources:
        for label in source.labels():
            if label not in labels:
                raise InputError(f"{source.named()}: {folder} has no label {label!r} (it has {', '.join(labels)}).")


def _named(examples: Examples) -> str:
    names = [source.name for source in examples.sources]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _training(seen: npt.NDArray[np.bool_] | None, table: pa.Table) -> dict[str, Any] | None:
    """How many of the texts the classifier has learned from, in all and by source; None where it does not say."""
    if seen is None:
        return None
    known = table.filter(pa.array(seen))["source"].value_counts().to_pylist()
    return {"texts": int(seen.sum()), "of": len(seen), "by_source": {count["values"]: count["counts"] for count in known}}


def _left(folder: str | Path, table: pa.Table, seen: npt.NDArray[np.bool_] | None) -> pa.Table:
    if seen is None:
        raise InputError(f"{folder}: does not say what it has learned from (it has no training.hashes), so nothing can be left out.")
    if seen.all():
        raise InputError(f"{folder}: has learned from all {len(seen):,} texts, so none is left.")
    return table.filter(pa.array(~seen))


def score_batches(scorer: Scorer, text: pa.ChunkedArray | pa.Array) -> Iterator[npt.NDArray[np.float64]]:
    """The calibrated scores (n,) of each head; memory grows with the scores alone."""
    found = [[scored.score for scored in scorer.score(text.slice(begin, BATCH))] for begin in range(0, len(text), BATCH)]
    return (np.concatenate(each) for each in zip(*found, strict=True))


def _sources(examples: Examples) -> list[dict[str, Any]]:
    return [
        {"name": source.name, "files": source.files, "rows": source.rows, "examples": source.examples, "answers": source.answers}
        for source in examples.sources
    ]
