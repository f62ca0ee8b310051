"""The stage that trains the tokenizer: a sample of the documents, counted words, byte-level BPE.

Its phases: the sizes of hash buckets (to know which make up the sample), word counts of the sample, one training, and judging.
"""

import json
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmill.pipeline.byte_alphabet import tiktoken_file
from corpusmill.pipeline.config import Config as BaseConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.special_tokens import END_OF_TEXT, PAD, SPECIAL_TOKENS
from corpusmill.pipeline.stage import Output, Piece, Stage, Worker
from corpusmill.tokenize.chance import BUCKETS
from corpusmill.tokenize.judge_stage import QUALITY_FILE, JudgeConfig, Words, judge, selection, summary
from corpusmill.tokenize.patterns import PatternName
from corpusmill.tokenize.sampling import bucket_sizes, buckets_needed, in_sample
from corpusmill.tokenize.words import WordCounter, merge_counts

TOKENIZER_FILE = "tokenizer.json"
#: What transformers takes for "no limit"; the model's own configuration states its context.
NO_LIMIT = int(1e30)


class TrainingConfig(BaseConfig):
    """What decides the tokenizer."""

    vocabulary_size: int = Field(
        32_768, ge=512, le=262_144, description="Tokens of the vocabulary, the special ones and the 256 bytes included."
    )
    pattern: PatternName = Field("gpt2", description="The regular expression that cuts text into pieces before BPE.")
    sample_mb: int = Field(500, ge=1, le=100_000, description="Text to train on, in MB (10^6 UTF-8 bytes); all of it where there is less.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Which documents are in the sample: they are chosen by a hash of this and their id.")
    minimum_frequency: int = Field(2, ge=1, description="A pair of tokens that occurs less often in the sample is not merged.")


class TokenizerConfig(TrainingConfig):
    judge: JudgeConfig = Field(default=JudgeConfig(), description="How it is judged.")


class SizesWorker(Worker):
    """Text bytes of each hash bucket in one shard of documents."""

    config: TrainingConfig

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        sizes, rows = np.zeros(BUCKETS, np.int64), 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            sizes += bucket_sizes(table, self.config.seed)
            rows += table.num_rows
        used = np.flatnonzero(sizes)
        content = pa.table({"bucket": used, "utf8_bytes": sizes[used]})
        return Output({f"sizes/{piece.key}.parquet": content}, rows_in=rows, kept=rows, bytes_in=int(sizes.sum()))


class CountsWorker(Worker):
    """Word counts of the sampled documents in one shard; `chosen` is the number of hash buckets in the sample."""

    config: TrainingConfig

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = ["id", "text", *(["language"] if "language" in file.schema_arrow.names else [])]
        counter, rows, sampled, size = WordCounter(self.config.pattern), 0, 0, 0
        for table in iter_tables(self.run, path, columns):
            rows += table.num_rows
            table = in_sample(table, self.config.seed, self.params["chosen"])
            texts = table["text"].to_pylist()
            languages = table["language"].to_pylist() if "language" in columns else [None] * len(texts)
            counter.add(texts, languages)
            sampled += len(texts)
            size += pc.sum(pc.binary_length(table["text"])).as_py() or 0
        counts = {"sampled_documents": sampled, "long_words_left_out": counter.left_out}
        return Output({f"counts/{piece.key}.parquet": counter.table()}, rows_in=rows, kept=sampled, bytes_in=size, counts=counts)


class TokenizerStage(Stage):
    """Publishes `tokenizer.json`, `tokenizer_config.json`, `ranks.tiktoken` and `quality.json`."""

    name: ClassVar[str] = "tokenizer"
    Config = TokenizerConfig
    config: TokenizerConfig

    def execute(self, run: StageRun) -> None:
        documents, training = run.documents(), TrainingConfig(**self.config.model_dump(exclude={"judge"}))
        sizes = np.zeros(BUCKETS, np.int64)
        for row in run.map("sizes", SizesWorker, _pieces("sizes", documents), config=training):
            table = read_table(run.storage, row.outputs[0].path)
            sizes[table["bucket"].to_numpy()] += table["utf8_bytes"].to_numpy()
        if not sizes.any():
            raise InputError(f"tokenizer: the documents in {run.run.root} hold no text to train on.")
        chosen = buckets_needed(sizes, self.config.sample_mb * 1_000_000)
        rows = run.map("counts", CountsWorker, _pieces("counts", documents), {"chosen": chosen}, config=training)
        inputs = [row.ref(self.name, row.outputs[0].path) for row in rows]
        trained = run.once("train", inputs, lambda identity: self.train(run, rows), config=training)
        sample = {
            "sample_documents": sum(row.counts["sampled_documents"] for row in rows),
            "sample_bytes": sum(row.bytes_in for row in rows),
        }
        selected = selection({"seed": self.config.seed, "chosen": chosen}, sample["sample_bytes"], int(sizes.sum()), self.config.judge.mb)
        words = Words(inputs, lambda: (read_table(run.storage, row.outputs[0].path) for row in rows))
        judge(run, self.config.judge, documents, trained.ref(self.name, TOKENIZER_FILE), words, selected,
              {"pattern": self.config.pattern, **sample})  # fmt: skip

    def train(self, run: StageRun, rows: list[TaskRow]) -> Output:
        """Merges the counts and trains."""
        from corpusmill.tokenize.encode import Encoder
        from corpusmill.tokenize.training import train_bpe

        counts = merge_counts(read_table(run.storage, row.outputs[0].path) for row in rows)
        words = ((word, count) for _, word, count in count_rows(counts))
        tokenizer = train_bpe(words, self.config.vocabulary_size, self.config.minimum_frequency, self.config.pattern)
        content = (tokenizer.to_str(pretty=True) + "\n").encode()
        encoder = Encoder.from_json(content)
        files = {
            TOKENIZER_FILE: content,
            "tokenizer_config.json": _json(tokenizer_config()),
            "ranks.tiktoken": tiktoken_file(encoder.ranks),
        }
        return Output({**files})

    def summary(self, run: StageRun) -> dict[str, str]:
        return summary(json.loads(run.storage.read_bytes(QUALITY_FILE)))


def count_rows(counts: pa.Table) -> Iterable[tuple[str | None, str, int]]:
    """The rows of a table of counts, without making all of them Python objects at once."""
    for batch in counts.to_batches(max_chunksize=65_536):
        yield from zip(*(column.to_pylist() for column in batch.columns))


def tokenizer_config() -> dict[str, Any]:
    """What transformers needs beside `tokenizer.json`; training adds the chat template."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "extra_special_tokens": [token for token in SPECIAL_TOKENS if token not in (END_OF_TEXT, PAD)],
        "model_max_length": NO_LIMIT,
        "clean_up_tokenization_spaces": False,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _pieces(phase: str, documents: list[FileRef]) -> list[Piece]:
    return [Piece(f"{phase}-{number:05d}", (shard,)) for number, shard in enumerate(documents)]
