"""The stage that turns documents into token shards.

Each shard of documents is encoded by itself (`encoded/`; where documents are split by their place, once it is known how long all are), and
with a mixture its documents' components are found (`components/`). A plan says which documents are for validation, how often each is
taken, and which range of the shuffled order each token shard holds. Then each part is told what that means for its documents (`places/`,
`report/`), and each token shard is gathered from all parts.
"""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config as BaseConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Piece, Stage
from corpusmill.pipeline.token_shards import SHARDS_FILE, ShardSet, TokenShard, shard_names, token_dtype
from corpusmill.tokenize.cut import training_characters
from corpusmill.tokenize.layout import SPLITS
from corpusmill.tokenize.mixture import Mixture, match_config
from corpusmill.tokenize.pack import pack, packing_line, plans_by_shard
from corpusmill.tokenize.parts import EncodeConfig
from corpusmill.tokenize.planning import Part, Plan, make_plan
from corpusmill.tokenize.tokens_workers import PLAN, EncodeWorker, GatherWorker, LengthsWorker, MatchWorker, PlaceWorker

PackLength = Annotated[int, Field(ge=8, le=1 << 20)]


class TokensConfig(EncodeConfig):
    shard_tokens: int = Field(
        50_000_000, ge=1, lt=1 << 31, description="Tokens in a shard, about: a split is cut into equal shards of at most this."
    )
    validation_share: float = Field(
        0.01, ge=0, lt=1, description="Share of the documents (groups of documents that are alike) held out for validation."
    )
    validation_tail: float | None = Field(
        None, gt=0, lt=1, description="Held out is, instead, this last share of all characters in the order of the files; the document in "
        "which the border lies is cut in two.",
    )  # fmt: skip
    mixture: Mixture | None = Field(None, description="How much of which documents there is for training; without it each of them once.")
    pack_lengths: list[PackLength] = Field([], description="Rows of so many tokens into which whole documents are packed: a plan for each.")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.validation_tail is not None and self.validation_share != type(self).model_fields["validation_share"].default:
            raise ValueError("give validation_share or validation_tail, not both")
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
        unpacked = self.config.model_copy(update={"pack_lengths": []})  # other lengths change no shard
        if not documents:
            raise InputError(f"tokens: the stage before it left no shard of documents in {run.run.root}.")
        encoded = self._encode(run, names, documents, tokenizer)
        matched = self._match(run, names, documents)
        parts = [
            Part(name, shard.path, "+".join(output.sha256 for output in row.outputs))
            for name, shard, row in zip(names, documents, encoded, strict=True)
        ]
        tables = [row.ref(self.name, part.table) for part, row in zip(parts, encoded, strict=True)]
        components = [row.ref(self.name, part.components) for part, row in zip(parts, matched)]  # none without a mixture
        planned = run.once("plan", [*tables, *components, tokenizer], lambda _: self.plan(run, parts, tokenizer, encoded[0].counts),
                           config=unpacked)  # fmt: skip
        plan_file = planned.ref(self.name, PLAN)
        plan = Plan.from_json(json.loads(run.storage.read_bytes(PLAN)))
        run.map("place", PlaceWorker, [
            Piece(f"place/{part.name}", (plan_file, *files), {"part": number})
            for number, (part, *files) in enumerate(zip(parts, tables, *([components] if components else [])))
        ], config=BaseConfig())  # fmt: skip
        gathered = run.map("gather", GatherWorker, [
            Piece(f"{wanted.split}-{wanted.number:05d}", (plan_file,), {"shard": number}) for number, wanted in enumerate(plan.shards)
        ], config=BaseConfig())  # fmt: skip
        packed = pack(run, gathered, self.config.pack_lengths)
        shards = [row.ref(self.name, output.path) for row in [*gathered, *packed] for output in row.outputs]
        run.once("shards", [plan_file, *shards], lambda _: describe(run, plan, gathered, packed))

    def _encode(self, run: StageRun, names: list[str], documents: list[FileRef], tokenizer: FileRef) -> Sequence[TaskRow]:
        characters = self._training_characters(run, names, documents)

        def place(number: int) -> dict[str, int]:
            """Only where documents stay in the order of their files or are split by it, a part depends on the others that there are."""
            found = {} if self.config.shuffle else {"number": number, "pieces": len(documents)}
            return found | ({"training_characters": characters[number]} if characters else {})

        pieces = [
            Piece(f"encoded/{name}", (shard, tokenizer), place(n)) for n, (name, shard) in enumerate(zip(names, documents, strict=True))
        ]
        return run.map("encode", EncodeWorker, pieces, config=self.config.encoding())

    def _training_characters(self, run: StageRun, names: list[str], documents: list[FileRef]) -> list[int]:
        """How many characters of each shard are for training; none where documents are not split by their place."""
        if self.config.validation_tail is None:
            return []
        pieces = [Piece(f"lengths/{name}", (shard,)) for name, shard in zip(names, documents, strict=True)]
        rows = run.map("lengths", LengthsWorker, pieces, config=BaseConfig())
        return training_characters([row.counts["characters"] for row in rows], self.config.validation_tail)

    def _match(self, run: StageRun, names: list[str], documents: list[FileRef]) -> Sequence[TaskRow]:
        if self.config.mixture is None:
            return []
        pieces = [Piece(f"components/{name}", (shard,)) for name, shard in zip(names, documents, strict=True)]
        return run.map("components", MatchWorker, pieces, config=match_config(self.config.mixture))

    def plan(self, run: StageRun, parts: list[Part], tokenizer: FileRef, known: dict[str, int]) -> Output:
        """`plan.json`: the parts, which documents are for validation, how often each is taken, and the range of each token shard.
        `known`: what the encoding of a part says of the tokenizer."""
        config = self.config
        share = config.validation_tail or config.validation_share  # by place there are two groups, and any share takes the lower one
        plan = make_plan(run.storage, parts, config.shuffle, share, config.mixture, config.shard_tokens)
        header = {
            "tokenizer_sha256": tokenizer.fingerprint,
            "vocabulary_size": known["vocabulary_size"],
            "dtype": token_dtype(known["vocabulary_size"]).name,
            "end_of_text_id": known["end_of_text_id"],
        }
        warnings = [
            f"the component {share.name} gives {share.tokens:,} of the {share.wanted:,} tokens that its weight says (max_epochs)"
            for share in plan.mixture
            if share.short
        ]
        return Output({PLAN: (json.dumps({**header, **plan.as_json()}, indent=1) + "\n").encode()}, warnings=warnings)

    def summary(self, run: StageRun) -> dict[str, str]:
        lines = {}
        for split in SPLITS:
            found = ShardSet.read(run.storage.child(split))
            lines[split] = f"{found.tokens:,} tokens of {found.documents:,} documents in {len(found.shards):,} shards"
            if packings := found.packing():
                lines[f"{split} packed"] = "; ".join(map(packing_line, packings))
        for share in Plan.from_json(json.loads(run.storage.read_bytes(PLAN))).mixture:
            line = f"{share.tokens:,} tokens, {share.epochs:.2f} epochs of {share.there:,}"
            lines[share.name] = line + (f" ({share.short:,} short of its share: max_epochs)" if share.short else "")
        return lines


def describe(run: StageRun, plan: Plan, gathered: Sequence[TaskRow], packed: Sequence[TaskRow]) -> Output:
    """`shards.json` of both splits."""
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
    header: dict[str, Any] = json.loads(run.storage.read_bytes(PLAN))
    kept = {name: header[name] for name in ("dtype", "vocabulary_size", "tokenizer_sha256", "end_of_text_id")}
    sets = {split: ShardSet(**kept, split=split, shards=tuple(shards[split])) for split in SPLITS}
    return Output({f"{split}/{SHARDS_FILE}": found.to_json() for split, found in sets.items()})
