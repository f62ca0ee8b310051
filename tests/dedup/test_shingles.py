"""Compares shingles and signatures with plain Python, datatrove's pairs with datatrove's own code, and estimates with datasketch."""

import random
import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.clusters import shared
from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.normalise import reference
from corpusmill.dedup.shingles import CHUNK_BYTES, Shingler, band_keys, datatrove_permutations, equal_places, permutations, sha1, to_sets
from corpusmill.text.buffers import text_buffers
from corpusmill.text.hashing import xxh64

TEXTS = st.lists(st.text(alphabet="aBé  .,'’1中\u0301Σ😀\n", max_size=40), max_size=5)


def buffers(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return text_buffers(pa.array(["padding", *texts], pa.large_string()).slice(1))


def shingler(**config: Any) -> Shingler:
    made = Shingler(MinHashConfig(**config))
    made.setup()
    return made


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


NORMAL = {
    "none": lambda text: text,
    "lowercase": lambda text: lower(" ".join(text.split())),
    "datatrove": reference("datatrove"),
    "redpajama": reference("redpajama"),
}
WORDS = {
    "words": re.compile(r"\w+|[^\w\s]").findall,
    "whitespace": str.split,
    "characters": lambda text: re.findall(r"[^\W中]+|中|[^\w\s]", text),
    "spacy": lambda text: load_word_tokenizer("en").word_tokenize(text),
    None: list,
}


@pytest.mark.parametrize(("name", "bits"), [("corpusmill", 32), ("xxhash", 64), ("sha1", 32)])
@settings(deadline=None)
@given(
    normalisation=st.sampled_from(list(NORMAL)), rule=st.sampled_from(list(WORDS)), texts=TEXTS, ngram=st.integers(1, 4),
    least=st.integers(1, 6),
)  # fmt: skip
def test_shingles_are_those_of_plain_python(name, bits, normalisation, rule, texts, ngram, least) -> None:  # type: ignore[no-untyped-def]
    unit = "characters" if rule is None else "words"
    made = shingler(
        unit=unit,
        word_rule=rule or "words",
        normalisation=normalisation,
        hash=name,
        bits=bits,
        ngram=ngram,
        min_words=least,
        bands=3,
        rows=2,
    )
    found, shingles = made.signatures(*buffers(texts))
    hashes, bounds = made.sets(*buffers(texts))
    sets = [set(hashes[a:b].tolist()) for a, b in pairwise(bounds)]
    expected = []
    for text in texts:
        units = WORDS[rule](NORMAL[normalisation](text))  # type: ignore[operator]
        grams = [tuple(units[i : i + ngram]) for i in range(len(units) - ngram + 1)]
        expected.append(grams if len(units) >= least else [])
    assert shingles.tolist() == [len(grams) for grams in expected]
    assert [len(s) for s in sets] == [len(set(grams)) for grams in expected]
    for (a, first), (b, second) in combinations(zip(sets, expected, strict=True), 2):
        assert len(a & b) == len(set(first) & set(second))
    if name == "corpusmill":
        return
    separator = "" if rule is None else " "
    function = create_hash_func(HashConfig(precision=bits, hash_fc=name))
    multipliers, addends = datatrove_permutations(1, 6)
    for row, grams in zip(found, expected, strict=True):
        numbers = [function(separator.join(gram)) for gram in grams]
        values = [
            [(int(a) * h + int(b)) % 2**64 % (2**61 - 1) % 2**bits for h in numbers] for a, b in zip(multipliers, addends, strict=True)
        ]
        assert row.tolist() == ([min(v) for v in values] if grams else [0] * 6)


def crawl_texts(shared_data: Path) -> list[str]:
    """Returns real texts, some of them near copies: paragraphs of Wikipedia, and the same with words left out."""
    files = sorted((shared_data / "lid").glob("*.txt"))
    texts = ["\n".join(path.read_text().splitlines()[:12]) for path in files]
    changed = [re.sub(r"(\w+\W+){1}", "", text[: len(text) // 2], count=2) + text[len(text) // 2 :] for text in texts]
    return texts + changed


@pytest.mark.parametrize(("name", "bits"), [("xxhash", 64), ("sha1", 32)])
def test_candidate_pairs_are_datatroves(name: str, bits: int, shared_data: Path, tmp_path: Path) -> None:
    texts = [*crawl_texts(shared_data), "too short", ""]
    assert len(texts) >= 150
    config = MinhashConfig(hash_config=HashConfig(precision=bits, hash_fc=name))  # type: ignore[arg-type]
    step = MinhashDedupSignature(str(tmp_path), config)
    theirs = [step.get_signature(shingles) if len(shingles := step.get_shingles(text)) else None for text in texts]

    made = shingler(word_rule="spacy", normalisation="datatrove", hash=name, bits=bits, min_words=1)
    signatures, shingles = made.signatures(*buffers(texts))
    keys = band_keys(signatures, 14, 8)
    ours, expected = set(), set()
    for i, j in combinations(range(len(texts)), 2):
        if shingles[i] and shingles[j] and (keys[:, i] == keys[:, j]).any():
            ours.add((i, j))
        if theirs[i] and theirs[j] and any(a == b for a, b in zip(theirs[i], theirs[j], strict=True)):
            expected.add((i, j))
    assert ours == expected
    assert len(expected) > 50
    assert signatures.reshape(-1, 14, 8).tolist() == [row or [[0] * 8] * 14 for row in theirs]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1]), max_size=200), max_size=4))
def test_sets_are_ascending_without_repeats(numbers: list[list[int]]) -> None:
    hashes = np.array([n for some in numbers for n in some], np.uint64)
    bounds = np.cumsum([0, *map(len, numbers)])
    most = max(map(len, numbers), default=0)
    to_sets(hashes, bounds, np.empty(most, np.uint64), np.empty(most + 3, np.int64))
    assert [hashes[a:b].tolist() for a, b in pairwise(bounds)] == [sorted(set(some)) for some in numbers]


CONFIGS: list[dict[str, Any]] = [
    {},
    {"word_rule": "spacy", "normalisation": "datatrove", "hash": "xxhash", "bits": 64},
    {"unit": "characters", "normalisation": "redpajama", "hash": "sha1"},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_depends_on_the_batch(config: dict[str, Any]) -> None:
    texts = [f"The {n} times {n * n} words, and so on: " * (1 + n % 7) for n in range(300)]
    texts += ["x y " * (CHUNK_BYTES // 2), "", "one two three"]
    made = shingler(**config)
    signatures, shingles = made.signatures(*buffers(texts))
    hashes, bounds = made.sets(*buffers(texts))
    for place in (0, 5, 299, 300, 301, 302):
        alone, count = made.signatures(*buffers([texts[place]]))
        assert (alone[0] == signatures[place]).all() and count[0] == shingles[place]
        assert (made.sets(*buffers([texts[place]]))[0] == hashes[bounds[place] : bounds[place + 1]]).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_large_and_odd_texts_go_through(config: dict[str, Any]) -> None:
    """Their time grows with their length and not with its square, which would take hours here."""
    made = shingler(**config)
    for content in (b"", *(unit * 400_000 for unit in (b"\x00", b"a", "é ".encode(), b".,'", b"\xff"))):
        data, offsets = np.frombuffer(content, np.uint8), np.array([0, 0, len(content), len(content)])
        signatures, shingles = made.signatures(data, offsets)
        made.sets(data, offsets)
        assert shingles[0] == shingles[2] == 0 and not signatures[0].any()
    signatures, shingles = made.signatures(data[:0], np.zeros(1, np.int64))
    assert signatures.shape == (0, 112) and len(shingles) == 0


def ours(content: bytes, name: str, bits: int, before: int = 3) -> int:
    data = np.frombuffer(b"\xff" * before + content, np.uint8)
    if name == "sha1":
        value = int(sha1(data, before, len(data), np.zeros(16, np.uint64), np.zeros(5, np.uint64)))
        return value & ((1 << bits) - 1)
    return int(xxh64(data, before, len(data)))


@pytest.mark.parametrize(("name", "bits"), [("xxhash", 64), ("sha1", 64), ("sha1", 32)])
def test_hashes_are_datatroves_at_every_length(name: str, bits: int) -> None:
    theirs = create_hash_func(HashConfig(precision=bits, hash_fc=name))  # type: ignore[arg-type]
    for size in [*range(300), 1 << 16]:
        text = ("shingle" * (size // 7 + 1))[:size]
        assert ours(text.encode(), name, bits) == theirs(text)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = shared(a, b)
    return float(common / (len(a) + len(b) - common))


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


def test_signatures_never_change() -> None:
    """An index keeps those of earlier runs."""
    signatures, _ = shingler().signatures(*buffers(["The quick brown fox jumps over the lazy dog, again and again."]))
    assert signatures[0][:3].tolist() == [134025510, 466665767, 7097881]
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
