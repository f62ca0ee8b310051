"""The examples of a training, distinct and split, and what of them each label may see."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.duplicates import Distinct, NearDuplicates, distinct
from corpusmill.filters.classifier.examples import Examples, gather_examples
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.spec import TrainingSpec
from corpusmill.filters.classifier.split import PARTS, TEST, TRAIN, VALIDATION, Index, part_of, training_order
from corpusmill.pipeline.errors import InputError

#: Examples of each answer that each part must have: with fewer no measure means anything.
FEWEST = 5
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prepared:
    """`part`: int8, of each distinct example."""

    spec: TrainingSpec
    examples: Examples
    distinct: Distinct
    part: npt.NDArray[np.int8]

    @cached_property
    def source(self) -> npt.NDArray[np.int64]:
        """The place of each example's source in the spec."""
        names = pa.array([source.named() for source in self.spec.sources])
        return np.asarray(pa.compute.index_in(self.distinct.table["source"], names).to_numpy(), np.int64)

    @cached_property
    def repeat(self) -> npt.NDArray[np.float64]:
        return np.array([source.repeat for source in self.spec.sources])[self.source]

    def answers(self, label: str) -> tuple[Bools, Bools]:
        """`(known, yes)` of all examples."""
        column = self.distinct.table[label]
        return column.is_valid().to_numpy(), column.fill_null(0).to_numpy() == 1

    def order(self, label: str, rows: Index) -> Index:
        """Which of `rows` a model of a label is trained on, in which order."""
        _, yes = self.answers(label)
        spec, repeat = self.spec, self.repeat[rows]
        return rows[training_order(self.distinct.hashes[rows], yes[rows], repeat, spec.balance, spec.ratio, spec.seed)]

    def rows(self, label: str, *parts: int) -> Index:
        """The examples of some parts whose answer is known."""
        known, _ = self.answers(label)
        return np.flatnonzero(known & np.isin(self.part, parts))

    def counts(self, label: str) -> dict[str, dict[str, int]]:
        """Yes and no by part."""
        _, yes = self.answers(label)
        found = {}
        for part, name in enumerate(PARTS):
            rows = self.rows(label, part)
            found[name] = {"yes": int(yes[rows].sum()), "no": int((~yes[rows]).sum())}
        return found


def prepare(spec: TrainingSpec, near: NearDuplicates) -> Prepared:
    """Reads, writes in the form, takes out copies, splits. Raises InputError where a label can't be trained on what is left."""
    examples = gather_examples(spec.sources, ".", spec.labels, spec.seed)
    if not examples.table.num_rows:
        raise InputError(f"{_inputs(spec)}: there is no example with a text and an answer.")
    _check_answers(spec, examples.table)
    lines = write_form(spec.form, examples.table["text"])
    found = distinct(examples.table, lines, spec.labels, near)
    prepared = Prepared(spec, examples, found, part_of(found.hashes, found.cluster, spec.split, spec.seed))
    for label in spec.labels:
        _check_parts(label, prepared.counts(label))
    return prepared


def _inputs(spec: TrainingSpec) -> str:
    return ", ".join(source.named() for source in spec.sources[:3]) + (", ..." if len(spec.sources) > 3 else "")


def _check_answers(spec: TrainingSpec, table: pa.Table) -> None:
    for label in spec.labels:
        column = table[label]
        known, yes = len(column) - column.null_count, pa.compute.sum(column).as_py() or 0
        if not known:
            raise InputError(f"{_inputs(spec)}: no example has an answer to the label {label}.")
        if yes in (0, known):
            raise InputError(
                f"{_inputs(spec)}: all {known:,} answers to the label {label} are {'yes' if yes else 'no'}; a classifier needs both."
            )


def _check_parts(label: str, counts: dict[str, dict[str, int]]) -> None:
    for part, answers in counts.items():
        for answer, count in answers.items():
            if count < FEWEST:
                total = sum(found[answer] for found in counts.values())
                raise InputError(
                    f"label {label}: of {total:,} different examples with the answer {answer} only {count} are in the part {part}, "
                    f"which needs {FEWEST}; give more examples."
                )


def taken(column: pa.Array | pa.ChunkedArray, rows: Index | Sequence[int]) -> pa.Array:
    """Some rows of a column, as one array."""
    found = column.take(pa.array(rows, pa.int64()))
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


__all__ = ["TEST", "TRAIN", "VALIDATION", "Prepared", "prepare", "taken"]
