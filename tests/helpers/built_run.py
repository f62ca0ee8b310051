"""Writes a small run with known decisions through the run's own contracts (shards, manifests, token shards)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.manifest import FileRef, Manifest, TaskRow
from corpusmill.pipeline.schemas import DOCUMENTS, REPORT, document_id, meanings_metadata, with_columns
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import INDEX, ShardSet, TokenShard, shard_contents, shard_names

HOSTILE = "before<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred\x1b]0;title\x07 \u202eright to left\u202c after"
HOSTILE_URL = 'http://evil.test/<b onmouseover=alert(3)>?q="\u202e\x1b[2J'
RULES = [
    {"step": "gopher", "rule": "short", "column": "words", "comparison": "<", "threshold": 20},
    {"step": "gopher", "rule": "symbols", "column": "symbol_ratio", "comparison": ">", "threshold": 0.1},
    {"step": "language", "rule": "language", "column": "language_score", "comparison": "<", "threshold": 0.65},
    {"step": "gopher", "rule": "never", "column": "words", "comparison": ">", "threshold": 100000},
]
#: The meanings of rules, in words; one rule has none, and one name is hostile.
MEANINGS = {"short": "fewer than 20 words", "symbols": "more than 10% of <b>symbols</b>"}


def _figures(tokens: int, size: int = 10_000) -> dict[str, Any]:
    words = {"words": 1000, "tokens_per_word": tokens / 1000, "words_split": 0.25}
    return {"documents": 10, "utf8_bytes": size, "tokens": tokens, "bytes_per_token": size / tokens, **words}


#: The evaluation of the tokenizer; one tokenizer's name is hostile, as are a language, a host and a token.
QUALITY = {
    "vocabulary_size": 400,
    "judged": {"held_out": True, "documents": 10, "utf8_bytes": 10_000},
    "usage": {
        "unused_tokens": 7, "unused_bytes": 5,
        "undertrained": {"below": 100, "tokens": 30, "worst": [{"id": 300, "text": "a\x1b[31m<b>", "uses": 3}]},
        "never_produced": {"tokens": 1, "first": [{"id": 301, "text": "never\u202e"}]},
    },
    "tokenizers": {
        name: {
            **_figures(tokens),
            "languages": {"en": _figures(tokens // 2, 6000), HOSTILE: _figures(tokens // 2, 4000)},
            "hosts": {"host.test": _figures(tokens), "evil<script>": _figures(1)},
        }
        for name, tokens in (("this run", 4000), ("gpt2", 2500), ("/some/folder/<i>other/tokenizer.json", 3000))
    },
}  # fmt: skip


class RunBuilder:
    """Writes stages into a run folder; every method takes plain rows."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.storage = Storage(str(folder))
        folder.mkdir(parents=True, exist_ok=True)

    def json(self, path: str, value: Any) -> None:
        self.storage.write_bytes(path, json.dumps(value).encode())

    def ref(self, path: str) -> FileRef:
        """Returns a file as an input of a task; a file from outside the run gets a made-up fingerprint."""
        known = self.storage.exists(path) and "/" in path
        return FileRef(path, hashlib.sha256(self.storage.read_bytes(path)).hexdigest() if known else "x", 1)

    def decide(self, name: str, parts: Sequence[Sequence[dict[str, Any]]], fields: Sequence[pa.Field] = (), added: Sequence[pa.Field] = (),
               rules: Sequence[dict[str, Any]] = (), meanings: dict[str, str] | None = None, more: dict[str, Any] | None = None,
               **options: Any) -> list[dict[str, Any]]:  # fmt: skip
        """Writes a stage that decides about documents, and returns the rows that it keeps.

        A row has `failed`, the rules that it fails; what it lacks of `kept`, `chars_in` and `chars_out` follows. `fields` are further
        columns of the report and `added` of the documents; `more` are further files of the first task.
        """
        metadata = {b"corpusmill.rules": json.dumps(list(rules)).encode(), **meanings_metadata(meanings or {})} if rules else None
        decided = [[_decided(row) for row in rows] for rows in parts]
        kept = [[row for row in rows if row["kept"]] for rows in decided]
        files: list[dict[str, Any]] = []
        for number, (rows, good) in enumerate(zip(decided, kept, strict=True)):
            part = f"part-{number:05d}.parquet"
            files.append({f"data/{part}": documents(good, added), f"report/{part}": report(rows, fields, metadata)})
        files[0] |= more or {}
        self.stage(name, files, **options)
        return [row for rows in kept for row in rows]

    def stage(self, name: str, parts: list[dict[str, Any]], finish: bool = True, warnings: tuple[str, ...] = (),
              read: Sequence[str] = ("in",), read_each: Sequence[Sequence[str]] = ()) -> None:  # fmt: skip
        """Writes a stage: `parts` are the files of each task by path, `read` the inputs of every task (`read_each`: of each task)."""
        storage = self.storage.child(name)
        manifest = Manifest(storage)
        for number, files in enumerate(parts):
            inputs = [self.ref(path) for path in (read_each[number] if read_each else read)]
            outputs = [publish(storage, path, files[path]) for path in sorted(files)]
            report = next((t for p, t in files.items() if p.startswith("report/")), None)
            rows = report.num_rows if report is not None else 0
            kept = sum(report["kept"].to_pylist()) if report is not None else 0
            manifest.append(
                TaskRow(f"part-{number:05d}", f"{name}{number}", inputs, "c", "v", rows, kept, rows - kept, 1, outputs,
                        warnings=list(warnings) if number == 0 else [])
            )  # fmt: skip
        if finish:
            manifest.finish([f"part-{number:05d}" for number in range(len(parts))])


def _decided(row: dict[str, Any]) -> dict[str, Any]:
    failed, chars = row.get("failed", []), len(row.get("text") or "")
    return {"failed": failed, "kept": not failed, "chars_in": chars, "chars_out": 0 if failed else chars, **row}


def documents(rows: list[dict[str, Any]], extra: Sequence[pa.Field]) -> pa.Table:
    schema = with_columns(DOCUMENTS, list(extra))
    return pa.Table.from_pylist(
        [{**{f.name: None for f in schema}, **{k: v for k, v in r.items() if k in schema.names}} for r in rows], schema
    )


def report(rows: list[dict[str, Any]], extra: Sequence[pa.Field], metadata: dict[bytes, bytes] | None = None) -> pa.Table:
    schema = with_columns(REPORT, list(extra)).with_metadata(metadata)
    return pa.Table.from_pylist([{f.name: row.get(f.name) for f in schema} for row in rows], schema)


def pages() -> list[dict[str, Any]]:
    """Returns 60 records: 4 are no pages; of 56 pages 5 are short, 4 full of symbols (one of them short too), 3 in no clear language."""
    rows = []
    for number in range(60):
        words = 3 if number in (10, 11, 12, 13, 14) else 30 + number
        text = " ".join(f"word{number}x{place}" for place in range(words))
        url = f"http://host{number % 3}.test/page-{number}.html"
        if number == 30:
            text, url = f"{HOSTILE} {text}", HOSTILE_URL
        rows.append(
            {
                "id": document_id(url, text.encode()), "url": url, "timestamp": "2024-01-01T00:00:00Z",
                "source": f"crawl-{number % 2}.warc.gz",
                "offset": number * 1000, "length": 900, "text": text, "number": number, "words": words,
                "http_status": 404 if number < 4 else 200, "symbol_ratio": 0.2 if number in (14, 15, 16, 17) else number / 1000,
                "language": "de" if number % 5 == 0 else "en", "language_score": 0.5 if number in (30, 31, 32) else 0.9,
            }
        )  # fmt: skip
    return rows


def write_run(folder: Path, stages: tuple[str, ...] = ("ingest", "filter", "dedup", "tokens", "training")) -> RunBuilder:
    """Writes the whole run, or its first stages."""
    run = RunBuilder(folder)
    run.json(
        "run.json", {"inputs": ["crawl/"], "recipe": {name: {} for name in ("ingest", "filter", "dedup")}, "versions": {"corpusmill": "0"}}
    )
    rows = pages()
    if "ingest" in stages:
        _ingest(run, rows)
    rows = [row for row in rows if row["http_status"] == 200]
    if "filter" in stages:
        rows = _filter(run, rows)
    if "dedup" in stages:
        rows = _dedup(run, rows)
    if "tokens" in stages:
        _tokens(run, rows)
    if "training" in stages:
        _training(run)
    return run


def _halves(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def _ingest(run: RunBuilder, rows: list[dict[str, Any]]) -> None:
    fields = [pa.field("source", pa.string()), *(pa.field(name, pa.int64()) for name in ("offset", "length"))]
    decided = [{**row, "failed": [] if row["http_status"] == 200 else ["http_status"]} for row in rows]
    warnings = ("crawl-0.warc.gz: cut short at byte 60000, so its last record is left out.",)
    run.decide("ingest", _halves(decided), [*fields, pa.field("http_status", pa.int32())], warnings=warnings)


def _failed(row: dict[str, Any]) -> list[str]:
    checks = {"short": row["words"] < 20, "symbols": row["symbol_ratio"] > 0.1, "language": row["language_score"] < 0.65}
    return [name for name, fired in checks.items() if fired]


def _filter(run: RunBuilder, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    added = [pa.field("language", pa.string()), pa.field("language_score", pa.float64())]
    fields = [pa.field("words", pa.int64()), pa.field("symbol_ratio", pa.float64()), *added]
    decided = [{**row, "failed": _failed(row)} for row in rows]
    return run.decide("filter", _halves(decided), fields, added, RULES, MEANINGS)


def _dedup(run: RunBuilder, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns dedup's rows: documents 40 to 43 are one cluster, of which 43 stays."""
    fields = [pa.field("cluster_size", pa.int64()), pa.field("kept_id", pa.string()), pa.field("similarity", pa.float64()),
              pa.field("verified", pa.string())]  # fmt: skip
    leader = next(row["id"] for row in rows if row["number"] == 43)
    own = {"failed": [], "cluster_size": 1, "similarity": None, "verified": None}
    decided = [{"kept_id": row["id"]} | {name: row[name] for name in row if name not in ("kept", "chars_out")} | own for row in rows]
    for row in decided:
        if 40 <= row["number"] <= 43:
            row |= {"cluster_size": 4, "kept_id": leader}
        if 40 <= row["number"] < 43:
            row |= {"failed": ["near_duplicate"], "similarity": row["number"] / 50, "verified": "exact_jaccard"}
    members = [{**row, "kept": not row["failed"]} for row in decided if row["cluster_size"] > 1]
    read = [path for stage in ("ingest", "filter") for path in run.storage.list_files(f"{stage}/data")]
    return run.decide("dedup", [decided], fields, [pa.field("language", pa.string())], more=_clusters(run, members), read=read)


def _clusters(run: RunBuilder, members: list[dict[str, Any]]) -> dict[str, pa.Table]:
    """Returns the cluster tables of the dedup stage: the places of members in the input shards, and the losses of each crawl file."""
    stage = "filter" if run.storage.exists("filter/data") else "ingest"
    places = {}
    for path in run.storage.list_files(f"{stage}/data"):
        for row, id_ in enumerate(read_table(run.storage, path, ["id"])["id"].to_pylist()):
            places[id_] = (Path(path).stem, row)
    rows = [{**member, "shard": places[member["id"]][0], "row": places[member["id"]][1]} for member in members]
    names = ("shard", "row", "id", "source", "kept", "cluster_size", "kept_id", "similarity", "verified")
    counts = {"documents": 30, "exact": 0, "near": 2, "share": 2 / 30}
    return {
        "clusters/part-00000.parquet": pa.Table.from_pylist([{name: row[name] for name in names} for row in rows]),
        "clusters/sources.parquet": pa.Table.from_pylist([{"source": "crawl-0.warc.gz", **counts}]),
    }


def _tokens(run: RunBuilder, rows: list[dict[str, Any]]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [r["text"] for r in rows],
        trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False),
    )
    run.stage("tokenizer", [{"tokenizer.json": tokenizer.to_str().encode(), "quality.json": json.dumps(QUALITY).encode()}])
    sha256 = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    files: dict[str, Any] = {}
    data_row = 0
    decided: list[dict[str, Any]] = []
    for split, part in (("train", rows[:-4]), ("validation", rows[-4:])):
        ids, index = [], []
        for row in part:
            encoded = [*tokenizer.encode(row["text"]).ids, EOT_ID]
            place = {"first": len(ids), "tokens": len(encoded), "utf8_bytes": len(row["text"].encode()), "split": split}
            where = {"data_file": "dedup/data/part-00000.parquet", "data_row": data_row, "text_begin": 0, "copy": 0, "cluster_id": None}
            index.append({**row, **place, **where, "chars_in": len(row["text"])})
            data_row += 1
            ids += encoded
        contents = shard_contents(0, np.array(ids, "<u2"), pa.Table.from_pylist([{f.name: r[f.name] for f in INDEX} for r in index], INDEX))
        shard = TokenShard(*shard_names(0), len(ids), len(part), sum(r["utf8_bytes"] for r in index), "", "")
        description = ShardSet("uint16", 400, sha256, split, (shard,), EOT_ID)
        files |= {f"{split}/{name}": content for name, content in contents.items()}
        files[f"{split}/shards.json"] = description.to_json()
        decided += index
    fields = [pa.field(name, pa.int64()) for name in ("tokens", "utf8_bytes", "copies")]
    fields += [pa.field("split", pa.string()), pa.field("component", pa.string()), pa.field("shards", pa.list_(pa.int64()))]
    files["report/tokens-00000.parquet"] = report(
        [{**r, "kept": True, "failed": [], "chars_out": r["chars_in"], "copies": 1, "shards": [0], "component": None} for r in decided],
        fields,
    )
    run.stage("tokens", [files])


def _training(run: RunBuilder) -> None:
    for stage in ("pretrain", "sft", "align"):
        lines = [{"step": step, "loss": 5.0 / (step + 1), "lr": 1e-3 * step, "grad_norm": 1.0} for step in range(50)]
        if stage == "align":
            lines[7]["loss"] = "nan"
        run.storage.write_bytes(f"{stage}/logs/train.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    scores = {"pretrain": {"bits_per_byte": {"value": 1.234567}, "preferences": None}}
    run.json("evaluate/scores.json", {**scores, "align": {"bits_per_byte": {"value": 1.5}, "preferences": {"accuracy": 0.75}}})
    said = {"kind": "answer", "prompt": "The history of", "text": f"x {HOSTILE}"}
    run.json("evaluate/samples.json", {"pretrain": [{**said, "text": "first"}], "align": [said]})
    counts = {"tasks": 2, "rows_in": 56, "bytes_in": 4_000_000, "workers": 1}
    measure = {"stage": "filter", "phase": "", "seconds": 2.0, "peak_mb": 321, **counts}
    run.storage.write_bytes("metrics.jsonl", json.dumps(measure).encode() + b"\n")
