"""The parallel phases of the tokenizer stage: sizes of groups, counting words, adding counts up."""

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.shards import batches_buffer, iter_tables, open_batches, open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.tokenize.checked import checked
from corpusmill.tokenize.sampling import SIZES, columns_needed, in_sample, sizes_of
from corpusmill.tokenize.tokenizer_config import CountConfig, GroupsConfig
from corpusmill.tokenize.words import COUNTS, WordCounts

LANGUAGE = "language"


class SizesWorker(Worker):
    """Documents and text of each group and hash bucket in one shard of documents; being first, it looks whether they are whole."""

    config: GroupsConfig

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = columns_needed(self.config, file.schema_arrow.names, self.run.path(path))
        tables, rows, size = [SIZES.empty_table()], 0, 0
        for table in iter_tables(self.run, path, list(dict.fromkeys(["id", "text", *columns]))):
            tables.append(sizes_of(checked(table, self.run.path(path), rows), self.config))
            rows += table.num_rows
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
        return Output({f"sizes/{piece.key}.parquet": pa.concat_tables(tables)}, rows_in=rows, kept=rows, bytes_in=size)


class CountsWorker(Worker):
    """Word counts of the sampled documents in one shard, in ranges of words.

    `params`: `cutoffs`, pairs of a group's name and the last bucket of it that is in the sample, and the number of `ranges`.
    """

    config: CountConfig

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
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
        return Output({f"counts/{piece.key}.arrow": content}, rows_in=rows, kept=sampled, bytes_in=size, counts=numbers)


class SumWorker(Worker):
    """The sum of one range of all files of counts. `piece.params`: the `range`."""

    def process(self, piece: Piece) -> Output:
        counts = WordCounts()
        for ref in piece.inputs:
            with open_batches(self.run, ref.path) as reader:
                batch = reader.get_batch(piece.params["range"])
                counts.add_words(batch["word"], batch["language"], batch["count"].to_numpy())
        return Output({f"words/{piece.key}.arrow": batches_buffer(COUNTS, counts.tables(), "lz4")}, counts={"words": len(counts)})
