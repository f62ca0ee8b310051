"""Equal examples as one, and the clusters of near copies that no split may part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.classifier.training_hashes import hash_lines

Index = npt.NDArray[np.int64]
#: Texts (large_string, n) to the number of each one's cluster of near copies (n). The command line gives dedup's.
NearDuplicates = Callable[[pa.Array], Index]


@dataclass(frozen=True)
class Distinct:
    """Examples whose lines differ. `lines`: large_string, as fastText reads them; `hashes`: uint64, of the lines; `cluster`: a number
    shared by near copies and by pieces of one document. `copies`: how many examples were another one's copy; `conflicts`: by label, how
    many lines lost their answer as their copies contradict each other; `unanswered`: lines left out as no answer was left; `blank`:
    examples of which the form leaves nothing."""

    table: pa.Table
    lines: pa.Array
    hashes: npt.NDArray[np.uint64]
    cluster: Index
    copies: int
    conflicts: dict[str, int]
    unanswered: int
    blank: int


def distinct(table: pa.Table, lines: pa.Array, labels: Sequence[str], near: NearDuplicates) -> Distinct:
    """One example a line: the first in the order of the table, with what is known by any of its copies."""
    filled = np.asarray(pc.not_equal(lines, ""), bool)
    table, lines = table.filter(pa.array(filled)), lines.filter(pa.array(filled))
    group = _equal(lines)
    first = np.unique(group, return_index=True)[1]
    answers, conflicts = {}, {}
    for label in labels:
        answers[label], conflicts[label] = _merged(table[label], group, len(first))
    answered = np.any([column.is_valid().to_numpy(zero_copy_only=False) for column in answers.values()], axis=0)
    order = np.argsort(first[answered])  # the order of the table
    kept = first[answered][order]
    merged = table.take(pa.array(kept))
    for label in labels:
        place = merged.schema.get_field_index(label)
        merged = merged.set_column(place, label, answers[label].filter(pa.array(answered)).take(pa.array(order)))
    lines = lines.take(pa.array(kept))
    hashes = hash_lines(lines)
    cluster = _joined(near(lines), merged["document"].to_numpy())
    unanswered = int((~answered).sum())
    return Distinct(merged, lines, hashes, cluster, len(table) - len(first), conflicts, unanswered, int((~filled).sum()))


def _equal(lines: pa.Array) -> Index:
    """A number for each line, equal where the lines are."""
    return np.asarray(lines.dictionary_encode().indices, np.int64)


def _merged(column: pa.ChunkedArray, group: Index, groups: int) -> tuple[pa.Array, int]:
    """`(answers, conflicts)`: the answer of each group of equal lines, null where none is known or two are."""
    known = column.is_valid().to_numpy()
    values = column.fill_null(0).to_numpy()
    yes = np.bincount(group[known & (values == 1)], minlength=groups) > 0
    no = np.bincount(group[known & (values == 0)], minlength=groups) > 0
    return pa.array(yes.astype(np.int8), mask=yes == no), int((yes & no).sum())


def _joined(near: Index, document: Index) -> Index:
    """Clusters that have near copies and pieces of one document together: connected components of both."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(near)
    if not count:
        return np.zeros(0, np.int64)
    links = [np.unique(numbers, return_inverse=True)[1] for numbers in (near, document)]
    first = [np.unique(numbers, return_index=True)[1][numbers] for numbers in links]
    ends = np.concatenate(first), np.tile(np.arange(count), 2)
    graph = coo_array((np.ones(2 * count, np.int8), ends), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
