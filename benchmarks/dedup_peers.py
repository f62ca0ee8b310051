"""Runs the peers datatrove, datasketch and rensa on the documents of a run's finished `ingest`, Parquet to Parquet.

Each function takes the run, its shard keys and the parameters, and returns the ids of the documents that it removes. datasketch and
rensa are called as in their manuals, with words and shingles made once by the fastest Python: `re` and `str.join`.
"""

import contextlib
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.storage import Storage

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Parameters:
    """Parameters of MinHash-LSH: shingles of `ngram` words, `bands` bands of `rows` minima, removal from similarity `threshold` on."""

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    threshold: float = 0.75
    seed: int = 1

    @property
    def places(self) -> int:
        return self.bands * self.rows


def shingles(text: str, ngram: int) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]


def all_ids(run: Storage, keys: list[str]) -> set[str]:
    return {id_ for key in keys for id_ in read_table(run, f"ingest/data/{key}.parquet", ["id"])["id"].to_pylist()}


def through_parquet(run: Storage, keys: list[str], keep: Callable[[list[str]], list[bool]]) -> set[str]:
    """Wraps a library that works in memory: reads all shards, decides on all texts, writes the shards without the removed documents."""
    tables = [read_table(run, f"ingest/data/{key}.parquet") for key in keys]
    kept = keep([text for table in tables for text in table["text"].to_pylist()])
    removed: set[str] = set()
    for key, table in zip(keys, tables, strict=True):
        mine, kept = pa.array(kept[: table.num_rows], pa.bool_()), kept[table.num_rows :]
        stays = table.filter(mine)
        publish(run, f"peer/{key}.parquet", stays)
        removed |= set(table["id"].to_pylist()) - set(stays["id"].to_pylist())
    return removed


def datasketch(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    """Computes minima in bulk with xxhash; a document is removed when LSH finds an earlier one that stays. Nothing is verified."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    def keep(texts: list[str]) -> list[bool]:
        lsh = MinHashLSH(num_perm=p.places, params=(p.bands, p.rows))
        batches = ([s.encode() for s in shingles(text, p.ngram)] for text in texts)
        kept = []
        for number, minhash in enumerate(MinHash.generator(batches, num_perm=p.places, seed=p.seed, hashfunc=xxhash.xxh32_intdigest)):
            stays = minhash.is_empty() or not lsh.query(minhash)
            if stays:
                lsh.insert(number, minhash)
            kept.append(stays)
        return kept

    return through_parquet(run, keys, keep)


def rensa_lsh(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    """Does the same with rensa's sketches (made in one batch) and its LSH index. Nothing is verified."""
    from rensa import RMinHash, RMinHashLSH

    def keep(texts: list[str]) -> list[bool]:
        lsh = RMinHashLSH(p.threshold, p.places, p.bands)
        tokens = [shingles(text, p.ngram) for text in texts]
        kept = []
        for number, minhash in enumerate(RMinHash.from_token_sets(tokens, p.places, p.seed)):
            stays = not tokens[number] or not lsh.query(minhash)
            if stays:
                lsh.insert(number, minhash)
            kept.append(stays)
        return kept

    return through_parquet(run, keys, keep)


def rensa_deduplicator(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    """Uses the deduplicator of rensa's manual: its LSH proposes pairs, and the estimate of its sketches decides."""
    from rensa import RMinHashDeduplicator

    def keep(texts: list[str]) -> list[bool]:
        deduplicator = RMinHashDeduplicator(p.threshold, p.places, True, p.bands, p.seed)
        entries = ((str(number), shingles(text, p.ngram) or [str(number)]) for number, text in enumerate(texts))
        kept: list[bool] = deduplicator.add_pairs(entries)
        return kept

    return through_parquet(run, keys, keep)


def rensa_flags(run: Storage, keys: list[str], p: Parameters, rho: bool = False) -> set[str]:
    """Uses rensa's batch interface: one matrix of sketches, and one call that flags rows which share a band with another row.

    The call does not name the other row, so every flagged document is removed, and no member of a cluster is kept. With `rho`, only some
    shingles are sampled: faster, but no longer MinHash with these parameters.
    """
    from rensa import RMinHash, RMinHashLSH

    def keep(texts: list[str]) -> list[bool]:
        tokens = [shingles(text, p.ngram) or [str(number)] for number, text in enumerate(texts)]
        sketch = RMinHash.digest_matrix_from_token_sets_rho if rho else RMinHash.digest_matrix_from_token_sets
        flags = RMinHashLSH(p.threshold, p.places, p.bands).query_duplicate_flags_matrix_one_shot(sketch(tokens, p.places, p.seed))
        return [not flag for flag in flags]

    return through_parquet(run, keys, keep)


def rensa_rho(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    return rensa_flags(run, keys, p, rho=True)


def datatrove(run: Storage, keys: list[str], p: Parameters, spaces: bool = False) -> set[str]:
    """Performs datatrove's tasks one by one in this process: signatures, buckets, clusters, filter; default normalisation, 64-bit hashes.

    Words are spaCy's, the default; with `spaces` they are split at spaces, the cheapest way.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import dedup
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Spaces(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    logger.disable("datatrove")
    work = run.path("datatrove")
    shutil.rmtree(work, ignore_errors=True)
    config = dedup.MinhashConfig(n_grams=p.ngram, num_buckets=p.bands, hashes_per_bucket=p.rows, seed=p.seed)
    texts = ParquetReader(run.path("ingest/data"), read_metadata=False)
    rows = ParquetReader(run.path("ingest/data"))
    writer = ParquetWriter(f"{work}/data", expand_metadata=True, schema=DOCUMENTS, adapter=_as_row, compression="zstd")
    steps = [
        ([texts, dedup.MinhashDedupSignature(f"{work}/signatures", config, Spaces() if spaces else "en")], len(keys)),
        ([dedup.MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], p.bands),
        ([dedup.MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config)], 1),
        ([rows, dedup.MinhashDedupFilter(f"{work}/remove"), writer], len(keys)),
    ]
    for number, (pipeline, tasks) in enumerate(steps):
        with contextlib.redirect_stderr(io.StringIO()):  # no progress bars
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{work}/logs/{number}").run()
    output = run.child("datatrove/data")
    kept = {id_ for path in output.list_files() for id_ in read_table(output, path, ["id"])["id"].to_pylist()}
    return all_ids(run, keys) - kept


def _as_row(_: Any, document: Any) -> dict[str, Any]:
    """Returns a datatrove document as a row of its original shard."""
    return {**{name: document.metadata.get(name) for name in DOCUMENTS.names}, "id": document.id, "text": document.text}


def datatrove_spaces(run: Storage, keys: list[str], p: Parameters) -> set[str]:
    return datatrove(run, keys, p, spaces=True)
