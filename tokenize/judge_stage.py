"""The phases of the tokenizer stage that judge it: on text that it was not trained on, beside other tokenizers, by language and host."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from corpusmill.pipeline.config import Config as BaseConfig
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.tokenize.chance import BUCKETS, buckets, hashes
from corpusmill.tokenize.judged import PUBLISHED, file_of, from_json, read_judged
from corpusmill.tokenize.measured import COLUMNS, add_up, by_tokenizer, measure
from corpusmill.tokenize.sampling import in_sample

OWN = "this run"
QUALITY_FILE = "quality.json"
TOKENIZER = "tokenizer/tokenizer.json"
#: Less text than this that training has left is too little to judge on (UTF-8 bytes).
LEAST_HELD_OUT = 1_000_000
#: Added to the seed of the sample: which documents are judged is another choice than which are trained on.
OTHER_CHOICE = 1 << 32


class JudgeConfig(BaseConfig):
    """How the tokenizer is judged; changes nothing about it."""

    mb: int = Field(
        20, ge=1, le=100_000, description="Text to judge on, in MB, about: documents that were not trained on where there are any."
    )
    compare: list[str] = Field(
        [],
        description="Tokenizers to compare with on the same text: gpt2, cl100k, o200k, or the path of a tokenizer.json or tiktoken file.",
    )


def selection(seed: int, chosen: int, trained_bytes: int, total_bytes: int, mb: int) -> dict[str, Any]:
    """Which documents are judged (see `judged_documents`): about `mb` MB of those that are not in the sample, or, where that leaves
    less than LEAST_HELD_OUT bytes, of the sample. JSON-able."""
    held_out = total_bytes - trained_bytes >= LEAST_HELD_OUT
    there = total_bytes - trained_bytes if held_out else trained_bytes
    return {"seed": seed, "chosen": chosen, "held_out": held_out, "buckets": min(BUCKETS, math.ceil(BUCKETS * mb * 1e6 / max(there, 1)))}


def judged_documents(documents: pa.Table, selected: dict[str, Any]) -> pa.Table:
    """The documents of a table that a selection has."""
    if selected["held_out"]:
        sampled = set(in_sample(documents, selected["seed"], selected["chosen"])["id"].to_pylist())
        documents = documents.filter(pa.array([name not in sampled for name in documents["id"].to_pylist()], pa.bool_()))
    else:
        documents = in_sample(documents, selected["seed"], selected["chosen"])
    places = buckets(hashes(documents["id"].to_pylist(), selected["seed"] + OTHER_CHOICE))
    return documents.filter(pa.array(places < selected["buckets"]))


class JudgeWorker(Worker):
    """Measures all tokenizers on the judged documents of one shard."""

    config: JudgeConfig

    def setup(self) -> None:
        own = from_json(OWN, self.run.read_bytes(TOKENIZER), self.run.path(TOKENIZER))
        self.tokenizers = [own, *(read_judged(given) for given in self.config.compare)]

    def process(self, piece: Piece) -> Output:
        path, found, rows = piece.inputs[0].path, [], 0
        with open_parquet(self.run, path) as file:
            columns = ["id", "text", *(name for name in COLUMNS if name in file.schema_arrow.names)]
        for table in iter_tables(self.run, path, columns):
            table = judged_documents(table, self.params["selection"])
            rows += table.num_rows
            if table.num_rows:
                found.append(measure(table, self.tokenizers))
        return Output({f"judged/{piece.key}.parquet": add_up(found)}, rows_in=rows, kept=rows)


def judge(
    run: StageRun, config: JudgeConfig, documents: list[FileRef], tokenizer: FileRef, selected: dict[str, Any], trained: dict[str, Any]
) -> None:
    """Performs the phases `judge` and `quality`. `trained` is what training says of itself, and goes before all else."""
    given = [_reference(name) for name in config.compare]
    pieces = [Piece(f"judge-{number:05d}", (shard, tokenizer, *given)) for number, shard in enumerate(documents)]
    rows = run.map("judge", JudgeWorker, pieces, {"selection": selected}, config=config)
    inputs = [tokenizer, *(row.ref(run.stage.name, row.outputs[0].path) for row in rows)]

    def quality(identity: str) -> Output:
        measured = add_up(read_table(run.storage, row.outputs[0].path) for row in rows)
        found = by_tokenizer(measured, [OWN, *config.compare])
        judged = {"held_out": selected["held_out"], "selection": selected, **{n: found[OWN][n] for n in ("documents", "utf8_bytes")}}
        content = {**trained, "judged": judged, "tokenizers": found}
        return Output({QUALITY_FILE: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()})

    run.once("quality", inputs, quality, {"trained": trained, "selection": selected})


def _reference(given: str) -> FileRef:
    """A tokenizer to compare with, as an input of a task."""
    path, _ = file_of(given)
    if given in PUBLISHED:
        return FileRef(PUBLISHED[given].name, PUBLISHED[given].sha256)
    return FileRef(given, hashlib.sha256(Path(path).read_bytes()).hexdigest(), Path(path).stat().st_size)


def summary(quality: dict[str, Any]) -> dict[str, str]:
    """Lines for the terminal."""
    judged, tokenizers, usage = quality["judged"], quality["tokenizers"], quality["usage"]
    text = "that it was not trained on" if judged["held_out"] else "of its own sample"

    def compared(name: str, form: str) -> str:
        own, *others = [f"{form.format(found[name])}" if found[name] is not None else "–" for found in tokenizers.values()]
        beside = ", ".join(f"{other} {value}" for other, value in zip([*tokenizers][1:], others, strict=True))
        return own + (f" ({beside})" if beside else "")

    rare = usage["undertrained"]
    return {
        "vocabulary": f"{quality['vocabulary_size']:,} tokens (used on the sample: {usage['unused_tokens']:,} never, "
        f"{rare['tokens']:,} less than {rare['below']:,} times)",
        "sample": f"{quality['sample_documents']:,} documents, {quality['sample_bytes'] / 1e6:,.1f} MB",
        "judged on": f"{judged['documents']:,} documents {text}, {judged['utf8_bytes'] / 1e6:,.1f} MB",
        "bytes per token": compared("bytes_per_token", "{:.2f}"),
        "tokens per word": compared("tokens_per_word", "{:.2f}"),
        "words split": compared("words_split", "{:.1%}"),
    }
