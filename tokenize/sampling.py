"""The tokenizer's training sample: in each group, the documents with the smallest hashes, until the group's share is reached.

The choice depends on ids, lengths, groups and the seed, not on how files divide the documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.shards import batches_buffer, iter_tables, open_batches, open_parquet
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.documents import checked, hashes
from corpusmill.tokenize.mixture import HOST, MatchConfig, components_of, needed_columns
from corpusmill.tokenize.tokenizer_config import OTHERS, CountConfig, GroupsConfig, SampleConfig
from corpusmill.tokenize.words import COUNTS, WordCounts

#: The largest number of groups in a sample.
MOST_GROUPS = 1000
SECTION = "tokenizer.sample"

SIZES = pa.schema(
    [
        pa.field("group", pa.string()),  # null: the document has no value, or there are no groups
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
    ]
)


def buckets_of(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Returns the bucket of each hash; a larger hash is never in an earlier bucket.

    A bucket is the exponent and the first eight bits of the hash as a floating-point number, so buckets are narrow where hashes are small.
    A sample of any corpus is thus cut to within 1/256 of its size.
    """
    fraction, exponent = np.frexp(values.astype(np.float64) + 1)
    return (exponent * 256 + (fraction - 0.5) * 512).astype(np.int32)


def columns_needed(config: GroupsConfig, present: Sequence[str], path: str) -> list[str]:
    """Returns the columns that decide a document's sample group. Raises InputError if the shard lacks one."""
    if config.components is not None:
        return needed_columns(_match(config), list(present), path)
    if config.by is None:
        return []
    column = "url" if config.by == HOST and HOST not in present else config.by
    if column not in present:
        raise InputError(f"{path}: no column {column!r}, which {SECTION}.by asks for; it has {', '.join(present)}.")
    return [column]


def _match(config: GroupsConfig) -> MatchConfig:
    return MatchConfig(conditions=config.components or [], section=f"{SECTION}.components")


def groups_of(documents: pa.Table, config: GroupsConfig) -> tuple[list[str | None], npt.NDArray[np.int64]]:
    """Returns the names of groups, and the number of each document's group (-1: none)."""
    if config.components is not None:
        return [name for name, _ in config.components], components_of(documents, _match(config)).astype(np.int64)
    if config.by is None:
        return [None], np.zeros(documents.num_rows, np.int64)
    made = config.by == HOST and HOST not in documents.column_names
    values = hosts(documents["url"]) if made else documents[config.by]
    if not any(test(values.type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)):
        raise InputError(f"{SECTION}.by: the column {config.by!r} is {values.type}, which makes no groups: give components with ranges.")
    coded = pa.chunked_array(values.cast(pa.string())).combine_chunks().dictionary_encode("encode")
    found, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if config.named is None:
        return found, codes
    number_of = {name: number for number, name in enumerate(config.named)}
    numbers = np.array([number_of.get(name if name is not None else OTHERS, number_of.get(OTHERS, -1)) for name in found], np.int64)
    return list(config.named), numbers[codes] if len(codes) else codes


def sizes_of(documents: pa.Table, config: GroupsConfig) -> pa.Table:
    """Returns documents and UTF-8 bytes of text by group and bucket (schema SIZES)."""
    names, groups = groups_of(documents, config)
    table = pa.table(
        {
            "group": pa.array(groups),
            "bucket": pa.array(buckets_of(hashes(documents["id"], config.seed))),
            "documents": pa.array(np.ones(documents.num_rows, np.int64)),
            "utf8_bytes": pc.binary_length(documents["text"]).cast(pa.int64()),
        }
    ).filter(pa.array(groups >= 0))
    added = _add_up(table)
    named = pa.array(names, pa.string()).take(added["group"].combine_chunks())
    return added.set_column(0, "group", named).cast(SIZES)


def add_sizes(tables: Sequence[pa.Table]) -> pa.Table:
    """Adds up tables of sizes and sorts the sum by group and bucket. Raises InputError if there are too many groups."""
    added = _add_up(pa.concat_tables([SIZES.empty_table(), *tables])).sort_by([("group", "ascending"), ("bucket", "ascending")])
    many = len(pc.unique(added["group"]))
    if many > MOST_GROUPS:
        raise InputError(
            f"{SECTION}.by: the documents have {many:,} groups, and {MOST_GROUPS:,} are the most: name those that count in {SECTION}."
            f"weights, and the others with '{OTHERS}'."
        )
    return added.cast(SIZES)


def _add_up(table: pa.Table) -> pa.Table:
    sums = table.group_by(["group", "bucket"], use_threads=False).aggregate([("documents", "sum"), ("utf8_bytes", "sum")])
    return sums.rename_columns(["group", "bucket", "documents", "utf8_bytes"])


@dataclass(frozen=True)
class SampleGroup:
    """A group's size, and its part of the sample: the documents in its buckets up to `cutoff`."""

    name: str | None
    documents: int
    utf8_bytes: int
    share_wanted: float
    sampled_documents: int
    sampled_bytes: int
    cutoff: int


def plan_sample(sizes: pa.Table, sample: SampleConfig) -> list[SampleGroup]:
    """Returns each group with its cutoff. Raises InputError if a group with a weight has no document."""
    names = pc.unique(sizes["group"]).to_pylist()
    by_group = {name: sizes.filter(_is(sizes["group"], name)) for name in names}
    total = {name: int(pc.sum(table["utf8_bytes"]).as_py()) for name, table in by_group.items()}
    weights = _weights(total, sample)
    wanted = fill(total, weights, sample.mb * 1_000_000)
    groups = []
    for name, table in by_group.items():
        documents, running = table["documents"].to_numpy(), np.cumsum(table["utf8_bytes"].to_numpy())
        rows = min(int(np.searchsorted(running, wanted[name], "left")) + 1, len(running))
        share = weights[name] / (sum(weights.values()) or 1)
        taken = int(documents[:rows].sum()), int(running[rows - 1]), int(table["bucket"][rows - 1].as_py())
        groups.append(SampleGroup(name, int(documents.sum()), total[name], share, *taken))
    return groups


def _is(column: pa.ChunkedArray, name: str | None) -> pa.ChunkedArray:
    return column.is_null() if name is None else pc.fill_null(pc.equal(column, name), False)


def _weights(total: Mapping[str | None, int], sample: SampleConfig) -> dict[str | None, float]:
    given = sample.weights
    if sample.components is not None:
        given = {component.name: component.weight for component in sample.components}
    if given is None:
        return {name: float(size) ** (1 / sample.temperature) for name, size in total.items()}
    for name in given:
        if name not in total and name != OTHERS:
            what = f"the component {name!r}" if sample.components is not None else f"{sample.by} {name!r}"
            raise InputError(f"{SECTION}: {what} has a weight, and no document is in it.")
    return {name: given[str(name)] for name in total}


def fill(total: Mapping[str | None, int], weights: Mapping[str | None, float], wanted: float) -> dict[str | None, float]:
    """Returns the bytes to take of each group: shares of `wanted` by weight. A group with less text than its share is taken whole, and
    the other groups make up for it."""
    found: dict[str | None, float] = {}
    left = dict(weights)
    while left:
        each = max(wanted - sum(found.values()), 0) / (sum(left.values()) or 1)
        short = [name for name in left if total[name] <= left[name] * each]
        if not short:
            return found | {name: weight * each for name, weight in left.items()}
        found |= {name: float(total[name]) for name in short}
        left = {name: weight for name, weight in left.items() if name not in found}
    return found


def in_sample(documents: pa.Table, config: GroupsConfig, cutoffs: Mapping[str | None, int]) -> pa.Table:
    """Returns the sampled documents: those in a bucket up to their group's cutoff."""
    names, groups = groups_of(documents, config)
    last = np.array([*(cutoffs.get(name, -1) for name in names), -1], np.int64)  # group number -1 (none) reads the last place
    return documents.filter(pa.array(buckets_of(hashes(documents["id"], config.seed)) <= last[groups]))


# ---- the parallel phases: sizes of groups, counts of words, their sums -----------------------------------


LANGUAGE = "language"


class SizesWorker(Worker):
    """Adds up documents and text by group and hash bucket in one shard of documents. As the first phase, it checks that text is valid."""

    config: GroupsConfig

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = columns_needed(self.config, file.schema_arrow.names, self.run.path(path))
        tables, rows, size = [SIZES.empty_table()], 0, 0
        for table in iter_tables(self.run, path, list(dict.fromkeys(["id", "text", *columns]))):
            tables.append(sizes_of(checked(table, self.run.path(path), rows), self.config))
            rows += table.num_rows
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
        return Output({f"sizes/{task.key}.parquet": pa.concat_tables(tables)}, rows_in=rows, kept=rows, bytes_in=size)


class CountsWorker(Worker):
    """Counts the words of the sampled documents of one shard, in ranges of words.

    `params`: `cutoffs`, pairs of a group's name and its last bucket in the sample; `ranges`, the number of ranges.
    """

    config: CountConfig

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            names = file.schema_arrow.names
            groups = columns_needed(self.config, names, self.run.path(path))
        columns = ["id", "text", *groups, *([LANGUAGE] if LANGUAGE in names else [])]
        cutoffs = dict(self.params["cutoffs"])
        counts, rows, sampled, size = WordCounts(), 0, 0, 0
        for table in iter_tables(self.run, path, list(dict.fromkeys(columns))):
            rows += table.num_rows
            table = in_sample(table, self.config, cutoffs)
            counts.add_texts(table["text"], table[LANGUAGE] if LANGUAGE in names else None, self.config.regex)
            sampled += table.num_rows
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
        content = batches_buffer(COUNTS, counts.tables(self.params["ranges"]), "lz4")
        numbers = {"sampled_documents": sampled, "long_words_left_out": counts.left_out}
        return Output({f"counts/{task.key}.arrow": content}, rows_in=rows, kept=sampled, bytes_in=size, counts=numbers)


class SumWorker(Worker):
    """Adds up one range of words over all files of counts. `task.params`: the `range`."""

    def process(self, task: Task) -> Output:
        counts = WordCounts()
        for ref in task.inputs:
            with open_batches(self.run, ref.path) as reader:
                batch = reader.get_batch(task.params["range"])
                counts.add_words(batch["word"], batch["language"], batch["count"].to_numpy())
        return Output({f"words/{task.key}.arrow": batches_buffer(COUNTS, counts.tables(), "lz4")}, counts={"words": len(counts)})


def read_words(storage: Storage, rows: Sequence[TaskRow]) -> pa.Table:
    """Returns what these tasks of SumWorker counted: columns word and count; a word has a row for each language."""
    tables = []
    for row in rows:
        with open_batches(storage, row.outputs[0].path) as reader:
            tables.append(pa.Table.from_batches([reader.get_batch(0)]).select(["word", "count"]))
    return pa.concat_tables(tables)
