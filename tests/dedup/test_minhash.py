import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.clusters import shared
from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.shingles import Shingler, equal_places, permutations
from corpusmill.pipeline.text.buffers import text_buffers


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = shared(a, b)
    return float(common / (len(a) + len(b) - common))


def buffers(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return text_buffers(pa.array(texts, pa.large_string()))


def shingler(**config: Any) -> Shingler:
    made = Shingler(MinHashConfig(**config))
    made.setup()
    return made


def overlapping(words: int, shared: int, seed: int) -> tuple[str, str]:
    """Returns two texts of random words with the same first `shared` words."""
    draw = random.Random(seed)
    common = [f"w{draw.randrange(10**9)}" for _ in range(shared)]
    rest = [[f"w{draw.randrange(10**9)}" for _ in range(words - shared)] for _ in range(2)]
    return " ".join(common + rest[0]), " ".join(common + rest[1])


@pytest.mark.parametrize("bits", [32, 64])
@settings(deadline=None)
@given(texts=st.lists(st.text(alphabet="ab é\n", max_size=60), max_size=4), ngram=st.integers(1, 3), min_words=st.integers(1, 6))
def test_signatures_are_minima_of_permuted_shingles(bits: int, texts: list[str], ngram: int, min_words: int) -> None:
    made = shingler(bits=bits, seed=7, bands=4, rows=4, ngram=ngram, min_words=min_words)
    multipliers, addends = permutations(7, 16, bits)
    found, shingles = made.signatures(*buffers(texts))
    hashes, bounds = made.sets(*buffers(texts))
    for i, text in enumerate(texts):
        words = len(text.split())
        own = [int(h) >> (64 - bits) for h in hashes[bounds[i] : bounds[i + 1]]]
        assert shingles[i] == (words - ngram + 1 if words >= max(ngram, min_words) else 0)
        if not shingles[i]:
            assert not found[i].any() and not own
        else:
            expected = [min((int(a) * h + int(b)) % 2**bits for h in own) for a, b in zip(multipliers, addends, strict=True)]
            assert found[i].tolist() == expected


def test_permutations_never_change() -> None:
    multipliers, addends = permutations(1, 2, 32)
    assert (multipliers.tolist(), addends.tolist()) == ([1283211323, 3178778533], [1720983188, 1688071852])
    assert (permutations(1, 112, 64)[0] % 2 == 1).all()
    assert permutations(1, 4, 32)[0].tolist() != permutations(2, 4, 32)[0].tolist()


def test_estimates_are_as_good_as_theory_and_datasketch() -> None:
    made = shingler(min_words=5)
    ours, theirs, expected = [], [], []
    for seed, same in enumerate(list(range(20, 200, 3)) * 3):
        texts = overlapping(200, same, seed)
        hashes, bounds = made.sets(*buffers(list(texts)))
        sets = [hashes[bounds[i] : bounds[i + 1]] for i in range(2)]
        true = jaccard(*sets)
        found, _ = made.signatures(*buffers(list(texts)))
        ours.append(equal_places(found[0], found[1]) / 112 - true)
        both = [MinHash(num_perm=112, seed=1) for _ in range(2)]
        for minhash, own in zip(both, sets, strict=True):
            minhash.update_batch([int(h).to_bytes(8, "little") for h in own])
        theirs.append(both[0].jaccard(both[1]) - true)
        expected.append(true * (1 - true) / 112)
    theory = np.sqrt(np.mean(expected))
    root = np.sqrt(np.mean(np.square(ours)))
    assert abs(np.mean(ours)) < 4 * theory / np.sqrt(len(ours))
    assert root < 1.15 * theory
    assert root < 1.25 * np.sqrt(np.mean(np.square(theirs)))
