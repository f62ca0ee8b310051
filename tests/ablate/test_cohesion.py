"""Tests how much documents hang together: against damage that is known, and without any."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.ablate.cohesion import cohesion, cohesion_difference
from corpusmill.ablate.corpora import Variant, reference_texts


def variant(folder: Path, name: str, texts: list[str]) -> Variant:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    return Variant(name, (str(path),), None, name, None)


def joined(texts: list[str], generator: random.Random) -> list[str]:
    """Returns as many texts, of pieces of 200 characters of all of them."""
    pieces = [text[begin : begin + 200] for text in texts for begin in range(0, len(text), 200)]
    generator.shuffle(pieces)
    each = len(pieces) // len(texts)
    return ["".join(pieces[number * each : (number + 1) * each]) for number in range(len(texts))]


def out_of_order(texts: list[str], generator: random.Random) -> list[str]:
    """Returns the texts with their sentences in another order."""
    sentences = [text.split(". ") for text in texts]
    return [". ".join(generator.sample(each, len(each))) for each in sentences]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text[:4000] for text, _ in reference_texts("wikipedia")]


@pytest.mark.parametrize(("damage", "judge"), [(joined, "topic"), (out_of_order, "order")])
def test_broken_documents_hang_together_less_the_more_there_are(
    tmp_path: Path, texts: list[str], damage: Callable[[list[str], random.Random], list[str]], judge: str
) -> None:
    means = []
    for share in (0.3, 0.6):
        count = round(share * len(texts))
        broken = [*damage(texts[:count], random.Random(1)), *texts[count:]]
        table = cohesion([variant(tmp_path, "whole", texts), variant(tmp_path, "broken", broken)])
        found = cohesion_difference(table, judge, "broken", "whole", 0.05)
        assert found is not None and found.low > 0
        means.append(found.mean)
    assert means[1] > means[0] > 0


def test_halves_of_a_corpus_hang_together_equally(tmp_path: Path, texts: list[str]) -> None:
    decided = 0
    for seed in range(20):
        mixed = random.Random(seed).sample(texts, len(texts))
        table = cohesion([variant(tmp_path, "a", mixed[::2]), variant(tmp_path, "b", mixed[1::2])])
        decided += sum(
            bool(of and of.decided) for of in (cohesion_difference(table, judge, "b", "a", 0.05) for judge in ("topic", "order"))
        )
    assert decided <= 5  # of 40; 5% is two, and more than 5 would come in 1% of cases


def test_documents_that_both_have_tell_nothing_and_few_are_not_compared(tmp_path: Path, texts: list[str]) -> None:
    table = cohesion([variant(tmp_path, "whole", texts), variant(tmp_path, "same", texts[::-1]), variant(tmp_path, "few", texts[:5])])
    same = cohesion_difference(table, "topic", "same", "whole", 0.05)
    assert same is not None and (same.mean, same.error) == (0.0, 0.0)
    assert cohesion_difference(table, "topic", "few", "whole", 0.05) is None
    assert cohesion([variant(tmp_path, "short", ["three words only"])]).num_rows == 0
