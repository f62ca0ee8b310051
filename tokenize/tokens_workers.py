"""What the phases of the tokens stage do with one piece each."""

import json
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.shards import batches_buffer, iter_tables, open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import DTYPES, shard_contents
from corpusmill.tokenize.checked import checked
from corpusmill.tokenize.gather import gather
from corpusmill.tokenize.mixture import MatchConfig, components_of, needed_columns
from corpusmill.tokenize.parts import NEEDED, OPTIONAL, EncodeConfig, Ordering, encode_part, end_of_text_id, part_buffer, read_part
from corpusmill.tokenize.places import REPORTED, places_buffer, report_of
from corpusmill.tokenize.planning import COMPONENTS, Plan, read_numbers

STAGE = "tokens"
TOKENIZER = "tokenizer/tokenizer.json"
PLAN = "plan.json"


class EncodeWorker(Worker):
    """Encodes one shard of documents. `params` of a piece where documents are not shuffled: its `number` among all `pieces`; where they
    are split by place: its `training_characters`."""

    memory_mb = 600
    config: EncodeConfig

    def setup(self) -> None:
        from corpusmill.tokenize.encode import Encoder

        self.encoder = Encoder.read(self.run, TOKENIZER)
        self.end = end_of_text_id(self.encoder, self.config.end_of_text, self.run.path(TOKENIZER))

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = [*NEEDED, *(name for name in OPTIONAL if name in file.schema_arrow.names)]
        tables = iter_tables(self.run, path, columns)
        ordering = Ordering(self.config.seed, self.config.shuffle, **piece.params)
        tokens, table = encode_part(self.encoder, self.end, tables, self.run.path(path), ordering)
        empty = int(np.sum(table["tokens"].to_numpy() == 0))
        documents = len(table) - int(np.sum(table["text_begin"].to_numpy() > 0))
        return Output(
            files={f"{piece.key}.bin": tokens.view(np.uint8).data, f"{piece.key}.arrow": part_buffer(table)},
            rows_in=documents,
            kept=documents - empty,
            dropped=empty,
            bytes_in=int(np.sum(table["utf8_bytes"].to_numpy())),
            counts={"tokens": len(tokens), "vocabulary_size": self.encoder.vocabulary_size, "end_of_text_id": self.end},
        )


class LengthsWorker(Worker):
    """The characters of one shard of documents: without them nobody can say where the last share of all begins."""

    def process(self, piece: Piece) -> Output:
        path, rows, found = piece.inputs[0].path, 0, 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            found += pc.sum(pc.utf8_length(checked(table, self.run.path(path), rows)["text"])).as_py() or 0
            rows += table.num_rows
        return Output({}, rows_in=rows, kept=rows, counts={"characters": found})


class MatchWorker(Worker):
    """The component of each document of a shard."""

    config: MatchConfig

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = needed_columns(self.config, file.schema_arrow.names, self.run.path(path))
        found = [np.zeros(0, np.int16), *(components_of(table, self.config) for table in iter_tables(self.run, path, columns))]
        component = np.concatenate(found)
        table = pa.table([pa.array(component)], schema=COMPONENTS)
        return Output({f"{piece.key}.arrow": batches_buffer(COMPONENTS, [table])}, counts={"matched": int(np.sum(component >= 0))})


class _Planned(Worker):
    """A worker that needs the plan."""

    @cached_property
    def storage(self) -> Storage:
        return self.run.child(STAGE)

    @cached_property
    def raw_plan(self) -> dict[str, Any]:
        raw: dict[str, Any] = json.loads(self.storage.read_bytes(PLAN))
        return raw

    @cached_property
    def plan(self) -> Plan:
        return Plan.from_json(self.raw_plan)


class PlaceWorker(_Planned):
    """What the plan says of the `part` of that number: the places of its documents in the global order, and their part of the report."""

    def process(self, piece: Piece) -> Output:
        part = self.plan.parts[piece.params["part"]]
        numbers = read_numbers(self.storage, part, bool(self.plan.mixture))
        table = read_part(self.storage, part.table, [*REPORTED, "data_row", "text_begin"])
        report = report_of(table, numbers, self.plan)
        cut = int(np.sum(table["text_begin"].to_numpy() > 0))  # a document that was cut is one, and both of its parts are taken or none
        counts = {"documents": report.num_rows - cut, "kept": int(np.sum(report["copies"].to_numpy() > 0)) - cut}
        return Output({part.places: places_buffer(numbers, self.plan), f"report/{part.name}.parquet": report}, counts=counts)


class GatherWorker(_Planned):
    """Builds the token `shard` of that number in the plan, and its index."""

    def process(self, piece: Piece) -> Output:
        wanted = self.plan.shards[piece.params["shard"]]
        tokens, index = gather(self.storage, self.plan.parts, wanted, DTYPES[self.raw_plan["dtype"]])
        contents = shard_contents(wanted.number, tokens, index)
        return Output(
            files={f"{wanted.split}/{name}": content for name, content in contents.items()},
            bytes_in=tokens.nbytes,
            counts={"tokens": len(tokens), "documents": index.num_rows, "utf8_bytes": int(np.sum(index["utf8_bytes"].to_numpy()))},
        )
