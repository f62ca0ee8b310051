"""Recall and precision of a run's deduplication, measured in the run itself: planted copies go through its phases beside the documents.

A pair is two made-up documents, as long and as repetitive as a real one and of a known similarity to each other. Their words are of letters
that no page uses (Deseret), so they are like no other document. They lie in a shard of their own behind this run's shards, pass signatures,
keys, buckets, groups and verdicts, and no later phase reads them: what the run writes is the same without them."""

from collections.abc import Sequence
from itertools import count
from random import Random

import numpy as np
import pyarrow as pa

from corpusmill.dedup.config import DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import MeasuredShard, files, first_output, read_rows
from corpusmill.dedup.policy import policy_columns
from corpusmill.dedup.shingles import Shingler, band_shape
from corpusmill.dedup.signatures import measured, read_columns
from corpusmill.pipeline.intervals import wilson
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import text_buffers

#: The planted shard, its file, and the task and the file with what became of the pairs.
PLANTED, PLANTED_FILE = "planted", "audit/planted.parquet"
AUDIT_TASK, PAIRS_FILE = "audit", "audit/pairs.parquet"
#: Fewer documents are not worth a measurement.
FEWEST = 100
#: Shards of which the first documents give pairs their shape (one process reads them), and words of a planted document, at most.
SHARDS, WORDS = 20, 500
#: Of ten pairs, how many are exact copies, and how many share a template of two thirds of their words; the others are edited.
EXACT, TEMPLATES = 1, 2
TEMPLATE_SHARE = 0.65
#: The similarity of edited pairs, at least; they are spread up to 1 (by the golden ratio, so that any number of them is spread evenly).
LEAST, GOLDEN = 0.5, 0.6180339887498949

PAIRS = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # exact | edited | template
        pa.field("similarity", pa.float64()),  # null where a document is too short to be compared
        pa.field("expected", pa.float64(), nullable=False),  # how likely they share a band: 1 - (1 - jaccard ** rows) ** bands
        pa.field("due", pa.bool_(), nullable=False),  # whether one of the two should go: an exact copy, or similar enough
        pa.field("joined", pa.bool_(), nullable=False),  # whether one of the two would go
    ]
)
#: Pairs of letters of Deseret, more than twice as many as `WORDS`.
SYLLABLES = [chr(0x10428 + a) + chr(0x10428 + b) for a in range(40) for b in range(40)]


def plant(run: StageRun, config: DedupConfig, own: Sequence[MeasuredShard]) -> list[MeasuredShard]:
    """Plants `config.audit` pairs, at most one for each document of this run, and measures them as documents. Returns their shard, alone in
    a list; an empty list where there is nothing to plant."""
    documents = sum(shard.rows for shard in own)
    pairs = min(config.audit, documents)
    if documents < FEWEST or not pairs:
        return []
    there = [shard for shard in own if shard.rows]
    chosen = [there[i * len(there) // min(SHARDS, len(there))] for i in range(min(SHARDS, len(there)))]
    columns = read_columns(config, config.by, policy_columns(config))
    row = run.once(
        PLANTED,
        [write_list(run, "planted-shapes", [shard.texts for shard in chosen if shard.texts])],
        lambda _: Output({PLANTED_FILE: planted(run.run, config, chosen, pairs, columns)}),
        {"pairs": pairs, "columns": columns},
        config.part(MeasureConfig),
    )
    return measured(run, config, [first_output(row)], "planted copies")


def planted(run: Storage, config: MeasureConfig, shards: Sequence[MeasuredShard], pairs: int, columns: list[str]) -> pa.Table:
    """Returns the documents of `pairs` pairs, two rows each. They have the columns of the documents whose shape they take."""
    tables, number = [], count()
    for i, shard in enumerate(shards):
        wanted = pairs * (i + 1) // len(shards) - pairs * i // len(shards)
        assert shard.texts
        for table in read_rows(run, shard.texts.path, np.arange(min(wanted, shard.rows), dtype=np.int64), columns):
            made = [(next(number), text) for text in table["text"].to_pylist()]
            texts = [text for pair, shape in made for text in pair_of(shape, pair, config)]
            ids = [f"planted-{pair:05d}-{side}" for pair, _ in made for side in "ab"]
            table = table.take(pa.array(np.repeat(np.arange(len(made)), 2)))
            for name, values in (("text", texts), ("id", ids), ("url", [None] * len(ids))):
                if name in columns:
                    at = table.schema.get_field_index(name)
                    field = table.schema.field(name).with_nullable(True)
                    table = table.set_column(at, field, pa.array(values, field.type))
            tables.append(table)
    return pa.concat_tables(tables, promote_options="permissive")


def kind_of(pair: int) -> str:
    place = pair % 10
    return "exact" if place < EXACT else "template" if place < EXACT + TEMPLATES else "edited"


def pair_of(shape: str, pair: int, config: MeasureConfig) -> tuple[str, str]:
    """Returns the texts of a pair with the words of `shape`, each spelled anew: two syllables are the pair's, one is the word's."""
    words = shape.split(None, WORDS)[:WORDS]
    if sum(map(len, words)) > 20 * len(words):  # a script without spaces
        words = list(shape[:WORDS])
    stem, kind = SYLLABLES[pair // len(SYLLABLES)] + SYLLABLES[pair % len(SYLLABLES)], kind_of(pair)
    number = {word: place for place, word in enumerate(dict.fromkeys(words))}
    first = [stem + SYLLABLES[number[word]] for word in words]
    if kind == "exact":
        one, other = " ".join(first), "  ".join(first)
        return one, {"none": one, "whitespace": other}.get(config.exact.normalisation, other.upper())
    if kind == "template":
        places: Sequence[int] = range(round(len(first) * TEMPLATE_SHARE / 2), round(len(first) * (1 - TEMPLATE_SHARE / 2)))
    else:
        similarity = LEAST + (1 - LEAST) * (pair * GOLDEN % 1)
        width = len(stem) + 3 if config.minhash.unit == "characters" else 1
        lost = len(first) * width * (1 - similarity) / (1 + similarity)  # of as many shingles, so that this is Jaccard's similarity
        edits = max(round(lost / (config.minhash.ngram + width - 1)), 1)
        places = Random(pair).sample(range(len(first)), min(edits, len(first)))
    second = list(first)
    for place in places:
        second[place] = stem + SYLLABLES[WORDS + place]
    return " ".join(first), " ".join(second)


def judge(run: StageRun, config: DedupConfig, shards: Sequence[MeasuredShard], clusters: Sequence[TaskRow]) -> None:
    """Records what became of the planted pairs. `shards`: what `plant` has returned."""
    for shard in shards:
        assert shard.texts
        texts, tables = shard.texts, files(clusters, "audit/")
        listed = write_list(run, "planted-clusters", tables)
        run.once(AUDIT_TASK, [texts, listed], lambda _: judged(run.run, config, texts.path, [ref.path for ref in tables]))  # noqa: B023


def judged(run: Storage, config: DedupConfig, planted: str, tables: Sequence[str]) -> Output:
    """Returns the table of pairs, and how many should and would go. `planted`: the path of the texts. `tables`: the paths of the planted
    documents' rows of the cluster table."""
    kept: dict[str, str] = {}
    for path in tables:
        table = read_table(run, path, ["id", "kept_id"])
        kept |= dict(zip(table["id"].to_pylist(), table["kept_id"].to_pylist(), strict=True))
    texts = read_table(run, planted, ["text"])["text"]
    hashes, bounds = np.zeros(0, np.uint64), np.zeros(len(texts) + 1, np.int64)
    if config.minhash.enabled:
        shingler = Shingler(config.minhash)
        shingler.setup()
        hashes, bounds = shingler.sets(*text_buffers(texts))
    bands, rows = band_shape(config.minhash)
    found = []
    for pair in range(len(texts) // 2):
        a, b = (hashes[bounds[row] : bounds[row + 1]] for row in (2 * pair, 2 * pair + 1))
        common, kind, id_ = len(np.intersect1d(a, b, assume_unique=True)), kind_of(pair), f"planted-{pair:05d}-"
        jaccard = common / max(len(a) + len(b) - common, 1)
        similarity = common / max(len(b), 1) if config.similarity == "containment" else jaccard
        comparable = len(a) > 0 and len(b) > 0
        due = (kind == "exact" and config.exact.enabled) or (comparable and similarity >= config.threshold)
        joined = f"{id_}a" in kept and kept[f"{id_}a"] == kept.get(f"{id_}b")
        found.append((pair, kind, similarity if comparable else None, 1 - (1 - jaccard**rows) ** bands, due, joined))
    counts = {
        "planted": len(found),
        "due": sum(due for *_, due, _ in found),
        "found": sum(due and joined for *_, due, joined in found),
        "wrong": sum(joined and not due for *_, due, joined in found),
    }
    return Output({PAIRS_FILE: pa.table(list(zip(*found, strict=True)), schema=PAIRS)}, counts=counts)


def audit_summary(run: StageRun) -> dict[str, str]:
    """Returns the line of the stage's summary about planted copies; none where nothing was planted."""
    row = run.manifest.tasks.get(AUDIT_TASK)
    if row is None or not row.counts["due"]:
        return {}
    counts = row.counts
    low, high = wilson(counts["found"], counts["due"])
    share = f"{counts['found'] / counts['due']:.1%} ({low:.1%} to {high:.1%})"
    less = counts["planted"] - counts["due"]
    return {"planted copies": f"{share} of {counts['due']:,} found; {counts['wrong']:,} of {less:,} less similar pairs taken for copies"}
