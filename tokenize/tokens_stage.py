"""The stage that turns documents into token shards.

Phases: encode each shard of documents into a part (`encoded/`); a split by place first measures all documents (`lengths`). With a mixture,
find the component of each document (`components/`). Make the plan: the documents for validation, the copies of each document, and the
range of the global order that each token shard holds. For each part, write the places and report rows of its documents (`places/`,
`report/`). Gather each token shard from all parts. Write packing plans (`pipeline/packing.py`).
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.packing import plan
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import batches_buffer, iter_tables, open_parquet, publish, read_table
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import (
    DTYPES,
    SHARDS_FILE,
    SPLITS,
    PackingFile,
    ShardSet,
    TokenShard,
    plan_bytes,
    plan_name,
    shard_contents,
    shard_names,
    token_dtype,
)
from corpusmill.tokenize.documents import checked
from corpusmill.tokenize.mixture import MatchConfig, Mixture, Rehydration, components_of, match_config, needed_columns
from corpusmill.tokenize.parts import (
    NEEDED,
    OPTIONAL,
    DocumentOrder,
    EncodeConfig,
    encode_part,
    end_of_text_id,
    part_buffer,
    read_part,
    tokens_content,
    training_characters,
)
from corpusmill.tokenize.planning import (
    COMPONENTS,
    REPORTED,
    EncodedPart,
    TokensPlan,
    gather,
    make_plan,
    places_buffer,
    read_numbers,
    report_of,
)

PackLength = Annotated[int, Field(ge=8, le=1 << 20)]


class TokensConfig(EncodeConfig):
    shard_tokens: int = Field(
        50_000_000, ge=1, lt=1 << 31, description="Tokens in a shard, about: a split is cut into equal shards of at most this."
    )
    validation_share: float = Field(
        0.01, ge=0, lt=1, description="Share of the documents (groups of documents that are alike) held out for validation."
    )
    validation_tail: float | None = Field(
        None, gt=0, lt=1, description="Holds out this last share of all characters, in file order, instead; the document in "
        "which the border lies is cut in two.",
    )  # fmt: skip
    mixture: Mixture | None = Field(None, description="Shares of the training tokens by kind of document; without it every document once.")
    rehydrate: Rehydration | None = Field(None, description="Copies by the size of a document's cluster, in place of a mixture.")
    pack_lengths: list[PackLength] = Field([], description="Row lengths in tokens; for each, a plan packs whole documents into rows.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.validation_tail is not None and self.validation_share != type(self).model_fields["validation_share"].default:
            raise ValueError("give validation_share or validation_tail, not both")
        if self.mixture and self.rehydrate:
            raise ValueError("give mixture or rehydrate, not both")
        return self

    def encoding(self) -> EncodeConfig:
        return EncodeConfig.model_validate({name: getattr(self, name) for name in EncodeConfig.model_fields})


class TokensStage(Stage):
    """Publishes `train/` and `validation/`, each a folder of token shards (`pipeline/token_shards.py`), and `report/`."""

    name: ClassVar[str] = "tokens"
    Config = TokensConfig
    config: TokensConfig

    def execute(self, run: StageRun) -> None:
        documents = run.documents()
        names = [PurePosixPath(shard.path).stem for shard in documents]
        tokenizer = run.outputs_of("tokenizer", "tokenizer.json")[0]
        unpacked = self.config.model_copy(update={"pack_lengths": []})  # the plan does not depend on them
        if not documents:
            raise InputError(f"tokens: the stage before it left no shard of documents in {run.run.root}.")
        encoded = self._encode(run, names, documents, tokenizer)
        matched = self._match(run, names, documents)
        parts = [
            EncodedPart(name, shard.path, "+".join(output.sha256 for output in row.outputs))
            for name, shard, row in zip(names, documents, encoded, strict=True)
        ]
        tables = [row.ref(self.name, part.table) for part, row in zip(parts, encoded, strict=True)]
        components = [row.ref(self.name, part.components) for part, row in zip(parts, matched)]  # none without a mixture
        planned = run.once("plan", [*tables, *components, tokenizer], lambda _: self.plan(run, parts, tokenizer, encoded[0].counts),
                           config=unpacked)  # fmt: skip
        plan_file = planned.ref(self.name, PLAN)
        plan = TokensPlan.from_json(run.storage.read_json(run.output(planned)))
        run.map("place", PlaceWorker, [
            Task(f"place/{part.name}", (plan_file, *files), {"part": number})
            for number, (part, *files) in enumerate(zip(parts, tables, *([components] if components else [])))
        ], config=Config())  # fmt: skip
        gathered = run.map("gather", TokenShardWorker, [
            Task(f"{wanted.split}-{wanted.number:05d}", (plan_file,), {"shard": number}) for number, wanted in enumerate(plan.shards)
        ], config=Config())  # fmt: skip
        packed = pack(run, gathered, self.config.pack_lengths)
        shards = [row.ref(self.name, output.path) for row in [*gathered, *packed] for output in row.outputs]
        run.once("shards", [plan_file, *shards], lambda _: describe(run, plan, gathered, packed), reads=False)

    def _encode(self, run: StageRun, names: list[str], documents: list[FileRef], tokenizer: FileRef) -> Sequence[TaskRow]:
        characters = self._training_characters(run, names, documents)

        def place(number: int) -> dict[str, int]:
            """Returns the params of a part's task. Only file order and a split by place make a part depend on other parts."""
            found = {} if self.config.shuffle else {"number": number, "pieces": len(documents)}
            return found | ({"training_characters": characters[number]} if characters else {})

        tasks = [
            Task(f"encoded/{name}", (shard, tokenizer), place(n)) for n, (name, shard) in enumerate(zip(names, documents, strict=True))
        ]
        return run.map("encode", EncodeWorker, tasks, config=self.config.encoding())

    def _training_characters(self, run: StageRun, names: list[str], documents: list[FileRef]) -> list[int]:
        """Returns the number of training characters of each shard; an empty list unless documents are split by place."""
        if self.config.validation_tail is None:
            return []
        tasks = [Task(f"lengths/{name}", (shard,)) for name, shard in zip(names, documents, strict=True)]
        rows = run.map("lengths", LengthsWorker, tasks, config=Config())
        return training_characters([row.counts["characters"] for row in rows], self.config.validation_tail)

    def _match(self, run: StageRun, names: list[str], documents: list[FileRef]) -> Sequence[TaskRow]:
        mixture = self.config.mixture or self.config.rehydrate
        if mixture is None:
            return []
        tasks = [Task(f"components/{name}", (shard,)) for name, shard in zip(names, documents, strict=True)]
        return run.map("components", MatchWorker, tasks, config=match_config(mixture))

    def plan(self, run: StageRun, parts: list[EncodedPart], tokenizer: FileRef, known: dict[str, int]) -> Output:
        """Returns the output `plan.json`. `known`: the counts of an encoded part that describe the tokenizer."""
        config = self.config
        share = config.validation_tail or config.validation_share  # a tail makes two groups; any share selects the lower one, the tail
        plan = make_plan(run.storage, parts, config.shuffle, share, config.mixture or config.rehydrate, config.shard_tokens)
        header = {
            "tokenizer_sha256": tokenizer.fingerprint,
            "vocabulary_size": known["vocabulary_size"],
            "dtype": token_dtype(known["vocabulary_size"]).name,
            "end_of_text_id": known["end_of_text_id"],
        }
        warnings = [
            f"the component {share.name} gives only {share.tokens:,} of its {share.wanted:,} tokens, limited by max_epochs"
            for share in plan.mixture
            if share.short
        ]
        return Output({PLAN: (json.dumps({**header, **plan.as_json()}, indent=1) + "\n").encode()}, warnings=warnings)

    def summary(self, run: StageRun) -> dict[str, str]:
        lines = {}
        for split in SPLITS:
            found = ShardSet.read(run.storage.child(split))
            shards = f"{len(found.shards):,} {'shard' if len(found.shards) == 1 else 'shards'}"
            lines[split] = f"{found.tokens:,} tokens of {found.documents:,} documents in {shards}"
            if packings := found.packing():
                lines[f"{split} packed"] = "; ".join(map(packing_line, packings))
        for share in TokensPlan.from_json(run.storage.read_json(PLAN)).mixture:
            line = f"{share.tokens:,} tokens, {share.epochs:.2f} epochs of {share.there:,}"
            lines[share.name] = line + (f" ({share.short:,} short of its share: max_epochs)" if share.short else "")
        return lines


def describe(run: StageRun, plan: TokensPlan, gathered: Sequence[TaskRow], packed: Sequence[TaskRow]) -> Output:
    """Returns `shards.json` of both splits."""
    plans = plans_by_shard(packed)
    shards: dict[str, list[TokenShard]] = {split: [] for split in SPLITS}
    for wanted, row in zip(plan.shards, gathered, strict=True):
        published = {output.path.removeprefix(f"{wanted.split}/"): output.sha256 for output in row.outputs}
        names = shard_names(wanted.number)
        sha256, index_sha256 = (published[name] for name in names)
        shards[wanted.split].append(
            TokenShard(
                *names, row.counts["tokens"], row.counts["documents"], row.counts["utf8_bytes"], sha256, index_sha256,
                plans=plans.get(f"{wanted.split}/{names[0]}", ()),
            )
        )  # fmt: skip
    header: dict[str, Any] = run.storage.read_json(PLAN)
    kept = {name: header[name] for name in ("dtype", "vocabulary_size", "tokenizer_sha256", "end_of_text_id")}
    sets = {split: ShardSet(**kept, split=split, shards=tuple(shards[split])) for split in SPLITS}
    return Output({f"{split}/{SHARDS_FILE}": found.to_json() for split, found in sets.items()})


# ---- packing plans ---------------------------------------------------------------------------------------


INDEX_ENDING = ".index.parquet"


class PackWorker(Worker):
    """Packs the documents of one shard into rows of one length."""

    def process(self, task: Task) -> Output:
        index, length = task.inputs[0].path, task.params["length"]
        table, rows = _plan(self.run, index, length)
        return Output({plan_name(_name(index), length): plan_bytes(table)}, counts={"length": length, "rows": rows, "pieces": len(table)})


def pack(run: StageRun, gathered: Sequence[TaskRow], lengths: Sequence[int]) -> Sequence[TaskRow]:
    """Runs the phase `pack` on the token shards that the tasks `gathered` wrote."""
    indexes = [row.ref(run.stage.name, output.path) for row in gathered for output in row.outputs if output.path.endswith(INDEX_ENDING)]
    tasks = [
        Task(f"pack-{length}-{_name(index.path).replace('/', '-')}", (index,), {"length": length})
        for length in sorted(set(lengths))
        for index in indexes
    ]
    return run.map("pack", PackWorker, tasks, config=Config())


def write_plans(storage: Storage, shard: TokenShard, lengths: Sequence[int]) -> tuple[PackingFile, ...]:
    """Writes the packing plans of a shard to `storage` and returns their descriptions."""
    found = []
    for length in lengths:
        table, rows = _plan(storage, shard.index, length)
        output = publish(storage, plan_name(shard.file, length), plan_bytes(table))
        found.append(PackingFile(length, output.path, rows, output.bytes, output.sha256))
    return tuple(found)


def _plan(storage: Storage, index: str, length: int) -> tuple[pa.Table, int]:
    return plan(read_table(storage, index, ["tokens"])["tokens"].to_numpy(), length)


def _name(index: str) -> str:
    """Returns, for the path of an index in the run, a name such as `train/tokens-00000`."""
    return index.partition("/")[2].removesuffix(INDEX_ENDING)


def plans_by_shard(packed: Sequence[TaskRow]) -> dict[str, tuple[PackingFile, ...]]:
    """Returns the packing plans of each shard, by the path of its `.bin` in the stage's folder."""
    found: dict[str, tuple[PackingFile, ...]] = {}
    for row in packed:
        (output,), length = row.outputs, row.counts["length"]
        shard = output.path.removesuffix(f".pack-{length}.arrow") + ".bin"
        described = PackingFile(length, output.path.rpartition("/")[2], row.counts["rows"], output.bytes, output.sha256)
        found[shard] = (*found.get(shard, ()), described)
    return found


def packing_line(packing: dict[str, Any]) -> str:
    """Returns a line about an entry of `ShardSet.packing`."""
    return f"{packing['rows']:,} rows of {packing['length']:,}, {packing['waste']:.3%} of their places empty"


# ---- the workers, in the order of their phases -----------------------------------------------------------


STAGE = "tokens"
TOKENIZER = "tokenizer/tokenizer.json"
PLAN = "plan.json"


class EncodeWorker(Worker):
    """Encodes one shard of documents. A task's `params`: in file order, its `number` and the count of all tasks (`pieces`); where documents
    are split by place, its `training_characters`."""

    memory_mb = 600
    config: EncodeConfig

    def setup(self) -> None:
        from corpusmill.tokenize.encode import Encoder

        self.encoder = Encoder.read(self.run, TOKENIZER)
        self.end = end_of_text_id(self.encoder, self.config.end_of_text, self.run.path(TOKENIZER))

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = [*NEEDED, *(name for name in OPTIONAL if name in file.schema_arrow.names)]
        tables = iter_tables(self.run, path, columns)
        ordering = DocumentOrder(self.config.seed, self.config.shuffle, **task.params)
        tokens, table = encode_part(self.encoder, self.end, tables, self.run.path(path), ordering)
        empty = int(np.sum(table["tokens"].to_numpy() == 0))
        documents = len(table) - int(np.sum(table["text_begin"].to_numpy() > 0))
        return Output(
            files={f"{task.key}.tokens.arrow": tokens_content(tokens), f"{task.key}.arrow": part_buffer(table)},
            rows_in=documents,
            kept=documents - empty,
            dropped=empty,
            bytes_in=int(np.sum(table["utf8_bytes"].to_numpy())),
            counts={"tokens": len(tokens), "vocabulary_size": self.encoder.vocabulary_size, "end_of_text_id": self.end},
        )


class LengthsWorker(Worker):
    """Counts the characters of one shard of documents, for a split by place."""

    def process(self, task: Task) -> Output:
        path, rows, found = task.inputs[0].path, 0, 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            found += pc.sum(pc.utf8_length(checked(table, self.run.path(path), rows)["text"])).as_py() or 0
            rows += table.num_rows
        return Output({}, rows_in=rows, kept=rows, counts={"characters": found})


class MatchWorker(Worker):
    """Finds the component of each document of a shard."""

    config: MatchConfig

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        with open_parquet(self.run, path) as file:
            columns = needed_columns(self.config, file.schema_arrow.names, self.run.path(path))
        found = [np.zeros(0, np.int16), *(components_of(table, self.config) for table in iter_tables(self.run, path, columns))]
        component = np.concatenate(found)
        table = pa.table([pa.array(component)], schema=COMPONENTS)
        return Output({f"{task.key}.arrow": batches_buffer(COMPONENTS, [table])}, counts={"matched": int(np.sum(component >= 0))})


class _Planned(Worker):
    """A worker that reads the plan once per process."""

    @cached_property
    def storage(self) -> Storage:
        return self.run.child(STAGE)

    @cached_property
    def raw_plan(self) -> dict[str, Any]:
        raw: dict[str, Any] = self.storage.read_json(PLAN)
        return raw

    @cached_property
    def plan(self) -> TokensPlan:
        return TokensPlan.from_json(self.raw_plan)


class PlaceWorker(_Planned):
    """Applies the plan to one `part`: writes the places of its documents in the global order, and their report rows."""

    def process(self, task: Task) -> Output:
        part = self.plan.parts[task.params["part"]]
        numbers = read_numbers(self.storage, part, bool(self.plan.mixture))
        table = read_part(self.storage, part.table, [*REPORTED, "data_row", "text_begin"])
        report = report_of(table, numbers, self.plan)
        cut = int(np.sum(table["text_begin"].to_numpy() > 0))  # documents cut in two: each has two rows, both taken or neither
        counts = {"documents": report.num_rows - cut, "kept": int(np.sum(report["copies"].to_numpy() > 0)) - cut}
        return Output({part.places: places_buffer(numbers, self.plan), f"report/{part.name}.parquet": report}, counts=counts)


class TokenShardWorker(_Planned):
    """Builds one token `shard` of the plan, and its index."""

    def process(self, task: Task) -> Output:
        wanted = self.plan.shards[task.params["shard"]]
        tokens, index = gather(self.storage, self.plan.parts, wanted, DTYPES[self.raw_plan["dtype"]])
        contents = shard_contents(wanted.number, tokens, index)
        return Output(
            files={f"{wanted.split}/{name}": content for name, content in contents.items()},
            bytes_in=tokens.nbytes,
            counts={"tokens": len(tokens), "documents": index.num_rows, "utf8_bytes": int(np.sum(index["utf8_bytes"].to_numpy()))},
        )
