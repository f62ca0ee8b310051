"""The stage that trains the tokenizer: a sample of the documents, counted words, byte-level BPE.

Three phases: the sizes of hash buckets (to know which make up the sample), word counts of the sample, one training.
"""

import json
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
from corpusmill.tokenize.patterns import PatternName
from corpusmill.tokenize.sampling import bucket_sizes, buckets_needed, in_sample
from corpusmill.tokenize.words import WordCounter, merge_counts

TOKENIZER_FILE = "tokenizer.json"
#: What transformers takes for "no limit"; the model's own configuration states its context.
NO_LIMIT = int(1e30)


class TokenizerConfig(BaseConfig):
    vocabulary_size: int = Field(
        32_768, ge=512, le=262_144, description="Tokens of the vocabulary, the special ones and the 256 bytes included."
    )
    pattern: PatternName = Field("gpt2", description="The regular expression that cuts text into pieces before BPE.")
    sample_mb: int = Field(500, ge=1, le=100_000, description="Text to train on, in MB (10^6 UTF-8 bytes); all of it where there is less.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Which documents are in the sample: they are chosen by a hash of this and their id.")
    minimum_frequency: int = Field(2, ge=1, description="A pair of tokens that occurs less often in the sample is not merged.")


class SizesWorker(Worker):
    """Text bytes of each hash bucket in one shard of documents."""

    config: TokenizerConfig

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

    config: TokenizerConfig

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
        documents = run.documents()
        sizes = np.zeros(BUCKETS, np.int64)
        for row in run.map("sizes", SizesWorker, _pieces("sizes", documents)):
            table = read_table(run.storage, row.outputs[0].path)
            sizes[table["bucket"].to_numpy()] += table["utf8_bytes"].to_numpy()
        if not sizes.any():
            raise InputError(f"tokenizer: the documents in {run.run.root} hold no text to train on.")
        chosen = buckets_needed(sizes, self.config.sample_mb * 1_000_000)
        rows = run.map("counts", CountsWorker, _pieces("counts", documents), {"chosen": chosen})
        inputs = [row.ref(self.name, row.outputs[0].path) for row in rows]
        run.once("train", inputs, lambda identity: self.train(run, rows))

    def train(self, run: StageRun, rows: list[TaskRow]) -> Output:
        """Merges the counts, trains, and judges the result on the same words."""
        from corpusmill.tokenize.encode import Encoder
        from corpusmill.tokenize.quality import judge
        from corpusmill.tokenize.quality import rows as count_rows
        from corpusmill.tokenize.training import train_bpe

        counts = merge_counts(read_table(run.storage, row.outputs[0].path) for row in rows)
        words = ((word, count) for _, word, count in count_rows(counts))
        tokenizer = train_bpe(words, self.config.vocabulary_size, self.config.minimum_frequency, self.config.pattern)
        content = (tokenizer.to_str(pretty=True) + "\n").encode()
        encoder = Encoder(content)
        documents = sum(row.counts["sampled_documents"] for row in rows)
        quality = {"sample_documents": documents, "pattern": self.config.pattern, **judge(encoder, counts)}
        files = {
            TOKENIZER_FILE: content,
            "tokenizer_config.json": _json(tokenizer_config()),
            "ranks.tiktoken": tiktoken_file(encoder.ranks),
            "quality.json": _json(quality),
        }
        return Output({**files}, counts={"sample_bytes": quality["utf8_bytes"], "sample_tokens": quality["tokens"]})

    def summary(self, run: StageRun) -> dict[str, str]:
        quality = json.loads(run.storage.read_bytes("quality.json"))
        return {
            "vocabulary": f"{quality['vocabulary_size']:,} tokens ({quality['unused_tokens']:,} unused on the sample)",
            "sample": f"{quality['sample_documents']:,} documents, {quality['utf8_bytes'] / 1e6:,.1f} MB",
            "bytes per token": f"{quality['bytes_per_token']:.2f}",
        }


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
