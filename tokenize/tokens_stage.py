"""The stage that turns documents into token shards.

Three phases: every shard of documents is encoded by itself (`encoded/`); a plan says which documents are for validation
and which range of the shuffled order each token shard holds; each token shard is gathered from all encoded parts.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.pipeline.config import Config as BaseConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.stage import Output, Piece, Stage, Worker
from corpusmill.pipeline.tokenshards import DTYPES, SHARDS_FILE, Shard, ShardSet, shard_contents
from corpusmill.tokenize.gather import gather, index_of, report_of
from corpusmill.tokenize.layout import SPLITS, ShardRange, shard_ranges, token_histograms, validation_limit
from corpusmill.tokenize.parts import Ordering, encode_part

TOKENIZER = "tokenizer/tokenizer.json"
PLAN = "plan.json"


class TokensConfig(BaseConfig):
    shard_tokens: int = Field(50_000_000, ge=1, description="Tokens in a shard, about: a split is cut into equal shards of at most this.")
    validation_share: float = Field(0.01, ge=0, lt=1, description="Share of the documents (groups of duplicates) held out for validation.")
    shuffle: bool = Field(True, description="Whether documents are shuffled over all shards, or stay in the order of their files.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Decides the shuffled order and which documents are for validation.")


class EncodeWorker(Worker):
    """Encodes one shard of documents; `number` of `pieces` is its place among them."""

    config: TokensConfig

    def setup(self) -> None:
        from corpusmill.tokenize.encode import Encoder

        self.encoder = Encoder.read(self.run, TOKENIZER)

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        with open_parquet(self.run, path) as file:
            names = file.schema_arrow.names
        columns = ["id", "url", "source", "offset", "length", "text", *(["kept_id"] if "kept_id" in names else [])]
        ordering = Ordering(self.config.seed, self.config.shuffle, piece.params["number"], piece.params["pieces"])
        tokens, table = encode_part(self.encoder, iter_tables(self.run, path, columns), path, ordering)
        size, empty = int(np.sum(table["utf8_bytes"].to_numpy())), int(np.sum(table["tokens"].to_numpy() == 0))
        return Output(
            files={f"encoded/{piece.key}.bin": tokens.tobytes(), f"encoded/{piece.key}.parquet": table},
            rows_in=table.num_rows,
            kept=table.num_rows - empty,
            dropped=empty,
            bytes_in=size,
            counts={"tokens": len(tokens)},
        )


class GatherWorker(Worker):
    """Builds one token shard, its index and its part of the report."""

    def process(self, piece: Piece) -> Output:
        storage = self.run.child(TokensStage.name)
        plan = json.loads(storage.read_bytes(PLAN))
        wanted = ShardRange(**piece.params["range"])
        tokens, rows = gather(storage, plan["parts"], wanted, plan["validation_limit"], DTYPES[plan["dtype"]])
        index = index_of(rows)
        contents = shard_contents(wanted.number, tokens, index)
        return Output(
            files={**{f"{wanted.split}/{name}": content for name, content in contents.items()},
                   f"report/part-{piece.params['report']:05d}.parquet": report_of(rows, wanted)},
            bytes_in=tokens.nbytes,
            counts={"tokens": len(tokens), "documents": index.num_rows, "utf8_bytes": int(np.sum(index["utf8_bytes"].to_numpy()))},
        )  # fmt: skip


class TokensStage(Stage):
    """Publishes `train/` and `validation/`, each a folder of token shards (`pipeline/tokenshards.py`), and `report/`."""

    name: ClassVar[str] = "tokens"
    Config = TokensConfig
    config: TokensConfig

    def execute(self, run: StageRun) -> None:
        documents = run.documents()
        tokenizer = run.outputs_of("tokenizer", "tokenizer.json")[0]
        encoded = run.map("encode", EncodeWorker, [
            Piece(f"encode-{number:05d}", (shard, tokenizer), {"number": number, "pieces": len(documents)})
            for number, shard in enumerate(documents)
        ])  # fmt: skip
        parts = [row.ref(self.name, output.path) for row in encoded for output in row.outputs]
        planned = run.once("plan", [*parts, tokenizer], lambda identity: self.plan(run, encoded, tokenizer))
        plan = json.loads(run.storage.read_bytes(PLAN))
        ranges = [ShardRange(**found) for found in plan["shards"]]
        gathered = run.map("gather", GatherWorker, [
            Piece(f"{wanted.split}-{wanted.number:05d}", (planned.ref(self.name, PLAN),), {"range": asdict(wanted), "report": number})
            for number, wanted in enumerate(ranges)
        ])  # fmt: skip
        shards = [row.ref(self.name, output.path) for row in gathered for output in row.outputs]
        run.once("shards", [planned.ref(self.name, PLAN), *shards], lambda identity: describe(plan, ranges, gathered))

    def plan(self, run: StageRun, encoded: list[TaskRow], tokenizer: FileRef) -> Output:
        """`plan.json`: the parts, which documents are for validation, and the range of each token shard."""
        from corpusmill.tokenize.encode import Encoder

        tables = [output.path for row in encoded for output in row.outputs if output.path.endswith(".parquet")]

        def columns(*names: str) -> Iterable[pa.Table]:
            return (read_table(run.storage, path, list(names)) for path in tables)

        groups = (table["group"].to_numpy()[table["tokens"].to_numpy() > 0] for table in columns("group", "tokens"))
        limit = validation_limit(groups, self.config.validation_share)
        ranges = shard_ranges(token_histograms(columns("order", "group", "tokens"), limit), self.config.shard_tokens)
        if not ranges:
            raise InputError(f"tokens: the documents in {run.run.root} hold no text.")
        encoder = Encoder.read(run.run, TOKENIZER)
        content = {
            "tokenizer_sha256": tokenizer.fingerprint,
            "vocabulary_size": encoder.vocabulary_size,
            "end_of_text_id": EOT_ID,
            "dtype": encoder.dtype.name,
            "validation_limit": limit,
            "parts": [path.removesuffix(".parquet") for path in tables],
            "shards": [asdict(found) for found in ranges],
        }
        return Output({PLAN: (json.dumps(content, indent=1) + "\n").encode()})

    def summary(self, run: StageRun) -> dict[str, str]:
        lines = {}
        for split in SPLITS:
            found = ShardSet.read(run.storage.child(split))
            lines[split] = f"{found.tokens:,} tokens of {found.documents:,} documents in {len(found.shards)} shards"
        return lines


def describe(plan: dict[str, object], ranges: list[ShardRange], gathered: list[TaskRow]) -> Output:
    """`shards.json` of both splits."""
    shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for wanted, row in zip(ranges, gathered, strict=True):
        published = {output.path.removeprefix(f"{wanted.split}/"): output for output in row.outputs}
        file, index = (next(name for name in published if name.endswith(ending)) for ending in (".bin", ".index.parquet"))
        shards[wanted.split].append(
            Shard(file=file, index=index, sha256=published[file].sha256, index_sha256=published[index].sha256, **row.counts)
        )
    header = {name: plan[name] for name in ("dtype", "vocabulary_size", "tokenizer_sha256", "end_of_text_id")}
    sets = {split: ShardSet(**header, split=split, shards=tuple(shards[split])) for split in SPLITS}  # type: ignore[arg-type]
    return Output({f"{split}/{SHARDS_FILE}": found.to_json() for split, found in sets.items()})
