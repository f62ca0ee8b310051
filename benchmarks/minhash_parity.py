"""Compares the candidate pairs of datatrove's MinHash with corpusmill's: two documents are a pair if a band of signatures is equal.

    python benchmarks/minhash_parity.py DOCUMENTS.parquet ... [--documents 5200] [--hash xxhash|sha1] [--bits 64]

Signatures and pairs of datatrove come from its own `MinhashDedupSignature`, once with its default word tokenizer (against
corpusmill's word rule `spacy`) and once with a regular expression (against `words`, `whitespace`). Texts, shingles and signatures are
compared too.
"""

import argparse
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import simplify_text
from parity import spread

from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.normalise import simplified, texts_of
from corpusmill.dedup.shingles import Shingler, band_keys
from corpusmill.text.buffers import text_buffers

TOKENIZERS: dict[str, Callable[[str], list[str]] | None] = {
    "spacy": None,
    "words": re.compile(r"\w+|[^\w\s]").findall,
    "whitespace": str.split,
}
Pairs = set[tuple[int, int]]


class RegexTokenizer:
    def __init__(self, find: Callable[[str], list[str]]) -> None:
        self.word_tokenize = find


def pairs_of(bands: npt.NDArray[np.uint64], compared: npt.NDArray[np.bool_]) -> Pairs:
    """Returns the pairs; `bands` has the shape documents x bands x size of a band."""
    pairs: Pairs = set()
    for band in range(bands.shape[1]):
        buckets = defaultdict(list)
        for document in np.flatnonzero(compared).tolist():
            buckets[bands[document, band].tobytes()].append(document)
        for bucket in buckets.values():
            pairs.update(combinations(bucket, 2))
    return pairs


def theirs(
    texts: list[str], config: MinhashConfig, tokenize: Callable[[str], list[str]] | None
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Returns datatrove's signatures (documents x bands x rows, zeros where it has none), and the numbers of shingles."""
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, config)
        if tokenize is not None:
            step.word_tokenizer = RegexTokenizer(tokenize)
        found = np.zeros((len(texts), config.num_buckets, config.hashes_per_bucket), np.uint64)
        counts = np.zeros(len(texts), np.int64)
        for place, text in enumerate(texts):
            shingles = step.get_shingles(text)
            counts[place] = len(shingles)
            if len(shingles):
                found[place] = step.get_signature(shingles)
    return found, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="Parquet files with a column text")
    parser.add_argument("--documents", type=int, default=5200)
    parser.add_argument("--hash", choices=["xxhash", "sha1"], default="xxhash")
    parser.add_argument("--bits", type=int, choices=[32, 64], default=64)
    parser.add_argument("--word-rule", choices=list(TOKENIZERS), action="append")
    arguments = parser.parse_args()
    texts = spread(arguments.data, arguments.documents)
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    print(f"{len(texts):,} documents, {len(data) / 1e6:.1f} MB, {arguments.hash} of {arguments.bits} bits, 14 bands of 8, 5-grams")

    start = time.process_time()
    forms = [simplify_text(text) for text in texts]
    peer = time.process_time() - start
    simplified(*text_buffers(pa.array(["warm"], pa.large_string())), "datatrove")
    start = time.process_time()
    ours = simplified(data, offsets, "datatrove")
    seconds = time.process_time() - start
    same = sum(a == b for a, b in zip(texts_of(*ours), forms, strict=True))
    print(f"texts: {same:,} of {len(texts):,} equal; datatrove {peer:.2f} s, ours {seconds:.3f} s")
    assert len(list(pairwise(ours[1]))) == len(texts)

    config = MinhashConfig(hash_config=HashConfig(precision=arguments.bits, hash_fc=arguments.hash))
    wrong = len(texts) - same
    for rule in arguments.word_rule or TOKENIZERS:
        shingler = Shingler(MinHashConfig(word_rule=rule, normalisation="datatrove", hash=arguments.hash, bits=arguments.bits, min_words=1))
        shingler.setup()
        shingler.signatures(data[: offsets[1]], offsets[:2])
        start = time.process_time()
        signatures, shingles = shingler.signatures(data, offsets)
        seconds = time.process_time() - start
        start = time.process_time()
        expected, counts = theirs(texts, config, TOKENIZERS[rule])
        peer = time.process_time() - start
        keys = band_keys(signatures, 14, 8).T[:, :, None]
        mine, peers = pairs_of(np.ascontiguousarray(keys), shingles > 0), pairs_of(expected, counts > 0)
        equal = int((signatures.astype(np.uint64) == expected.reshape(len(texts), -1)).all(axis=1).sum())
        print(
            f"{rule}: pairs ours {len(mine):,}, datatrove's {len(peers):,}, equal {len(mine & peers):,}; signatures equal {equal:,} of "
            f"{len(texts):,}; numbers of shingles equal {int((shingles == counts).sum()):,}; datatrove {peer:.1f} s, ours {seconds:.2f} s",
            flush=True,
        )
        wrong += len(mine ^ peers)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
