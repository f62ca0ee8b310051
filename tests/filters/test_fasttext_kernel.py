"""Compares scores of all labels with fastText's own predict: models of each loss, whole and quantised; random and hard texts."""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from fasttext import train_supervised
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.filters.fasttext_scores import KEPT_BYTES, FastTextScorer, as_fasttext_reads
from corpusmill.text.buffers import text_buffers

DIM = 10
SPACES = " \n\r\t\v\f\0"
#: fastText adds rows in single precision, and the kernel in double, so the last digits of the sums differ.
ROUNDING = 3e-5
#: A loss with independent labels reads its sigmoid from a table: for a sum between two entries, rounding chooses one.
TABLE_STEP = 1 / (1 + math.exp(-1 / 32)) - 0.5

TOKENS = [
    "the", "house", "la", "maison", "дом", "река", "漢字", "日本語の文", "η", "</s>", "</s", "__label__en", "__label__xx", "__label__",
    "<", ">", "<s>", "a", "é", "😀", "x" * (KEPT_BYTES - 1), "x" * KEPT_BYTES, "x" * (KEPT_BYTES + 1), "é" * 700,
    "\x85", "\x1c", "\u2028", "\x01\x1f", "12,345.67",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(TOKENS), st.text(max_size=12), st.sampled_from(list(SPACES))), max_size=12)
texts_like_these = hostile.flatmap(lambda parts: st.sampled_from(["", " ", "\n", "\0"]).map(lambda glue: glue.join(parts)))


@pytest.fixture(scope="module")
def passages(shared_data: Path) -> list[str]:
    """Returns 1, 3 and 20 sentences in each of 75 languages."""
    files = [path.read_text().splitlines() for path in sorted((shared_data / "lid").glob("*.txt"))]
    return ["\n".join(lines[:size]) for lines in files for size in (1, 3, 20)]


@pytest.fixture(scope="module")
def training_file(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes sentences in nine languages, in different numbers, so that the tree of hierarchical softmax has branches of many lengths."""
    path = tmp_path_factory.mktemp("fasttext") / "train.txt"
    with open(path, "w") as file:
        for place, code in enumerate(("en", "fr", "ru", "sr", "de", "zh", "ja", "el", "sw")):
            lines = (shared_data / "lid" / f"{code}.txt").read_text().splitlines()[: 60 + 40 * place]
            file.writelines(f"__label__{code} {line}\n" for line in lines)
    return str(path)


def scorer(model: FastTextModel, table_bytes: int | None = None) -> FastTextScorer:
    return FastTextScorer([model], bare=True, table_bytes=table_bytes)


def scores(model: FastTextModel, texts: list[str], kept: FastTextScorer | None = None) -> npt.NDArray[np.float32]:
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    found = (kept or scorer(model)).score(as_fasttext_reads(data, offsets), len(texts), len(data))
    assert found.first.tolist() == list(range(len(texts) + 1))
    return found.scores[0]


def expected_scores(reference, labels: tuple[str, ...], texts: list[str]) -> npt.NDArray[np.float32]:
    found = np.full((len(texts), len(labels)), -1, np.float32)
    for row, listed, values in zip(found, *reference.predict([text.replace("\n", " ") for text in texts], k=-1)):
        for label, value in zip(listed, values):
            row[labels.index(label)] = value
    return found


def compare(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], rounding: float = ROUNDING) -> float:
    """Asserts equality except for rounding; returns the largest difference."""
    both = (found >= 0) & (expected >= 0)
    one = (found >= 0) != (expected >= 0)
    assert np.maximum(found, expected)[one].max(initial=0) < 1e-5 + rounding  # fastText lists none below 1e-5
    assert ((expected >= 0).any(axis=1) == (found >= 0).any(axis=1)).all()
    difference = float(np.abs(found - expected)[both].max(initial=0))
    assert difference < rounding
    margin = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 2 * rounding
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[margin].all()
    return difference


LOSSES = ["softmax", "hs", "ova", "ns"]
SHAPES = [(0, 0, 1), (1, 4, 1), (2, 3, 3), (0, 0, 2)]  # minn, maxn, word_ngrams


def forms() -> Iterator[Any]:
    """Yields all combinations; each loss comes with each form once, and the rest are marked `long`."""
    for (place, loss), (number, shape), (form, quantised) in product(*map(enumerate, (LOSSES, SHAPES, ["no", "pruned", "short parts"]))):
        yield pytest.param(loss, *shape, quantised, marks=[] if (place + form) % 4 == number else [pytest.mark.long])


@pytest.mark.parametrize(("loss", "minn", "maxn", "word_ngrams", "quantised"), forms())
def test_scores_are_fasttexts(
    training_file: str, passages: list[str], tmp_path: Path, loss: str, minn: int, maxn: int, word_ngrams: int, quantised: str
) -> None:
    reference = train_supervised(
        training_file, dim=DIM, epoch=4, lr=0.5, minn=minn, maxn=maxn, wordNgrams=word_ngrams, bucket=5000, loss=loss, thread=1, verbose=0
    )
    if quantised == "pruned":
        reference.quantize(qnorm=True, cutoff=1500)
    elif quantised == "short parts":  # parts of 4 columns, the last one of 2
        reference.quantize(dsub=4)
    reference.save_model(str(tmp_path / "model"))
    model = read_model(str(tmp_path / "model"))
    assert model.labels == tuple(reference.get_labels())
    texts = [*passages, *TOKENS, " ".join(TOKENS), " ".join(reversed(TOKENS)), "", "\0"]
    found, expected = scores(model, texts), expected_scores(reference, model.labels, texts)
    if loss in ("softmax", "hs"):
        compare(found, expected)
    else:
        compare(found, expected, TABLE_STEP)
        assert (np.abs(found - expected) > ROUNDING).mean() < 0.002


@pytest.mark.parametrize("loss", ["softmax", "hs"])
def test_quantised_output(passages: list[str], tmp_path: Path, loss: str) -> None:
    """fastText quantises an output of 256 labels or more: here each sentence is a label."""
    sentences = [line for passage in passages[2::3] for line in passage.split("\n")[:4]]
    (tmp_path / "train.txt").write_text("".join(f"__label__{place} {line}\n" for place, line in enumerate(sentences)))
    reference = train_supervised(
        str(tmp_path / "train.txt"), dim=DIM, epoch=4, lr=0.5, minn=2, maxn=3, bucket=500, loss=loss, thread=1, verbose=0
    )
    reference.quantize(qout=True, qnorm=True, dsub=3)
    reference.save_model(str(tmp_path / "model"))
    model = read_model(str(tmp_path / "model"))
    assert len(model.labels) > 256
    compare(scores(model, passages), expected_scores(reference, model.labels, passages))


@pytest.fixture(scope="module")
def lid_176(lid_model: str):
    from fasttext.FastText import _FastText

    return _FastText(lid_model), (model := read_model(lid_model)), scorer(model)


def test_all_labels_of_lid_176(lid_176, texts: list[str], passages: list[str]) -> None:
    reference, model, _ = lid_176
    assert model.loss == 1 and model.buckets.size == 2_000_000
    compare(scores(model, texts + passages), expected_scores(reference, model.labels, texts + passages))


@given(st.lists(texts_like_these, min_size=1, max_size=4))
def test_random_texts(lid_176, texts: list[str]) -> None:
    reference, model, kept = lid_176
    compare(scores(model, texts, kept), expected_scores(reference, model.labels, texts))


def test_damaged_files_are_refused(training_file: str, tmp_path: Path) -> None:
    reference = train_supervised(training_file, dim=4, epoch=1, minn=2, maxn=3, bucket=2000, thread=1, verbose=0)
    path = tmp_path / "model"
    reference.quantize(qnorm=True, cutoff=1000)
    reference.save_model(str(path))
    content = path.read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(content), len(content) // 40)]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"format|ends too early|damaged|do not fit|empty"):
            read_model(str(path))


@pytest.mark.long
def test_models_that_do_not_fit_into_memory_are_refused(training_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is refused, with its size, before memory is allocated; rows of a model that is not quantised stay in the file."""
    reference = train_supervised(training_file, dim=40, epoch=1, minn=2, maxn=3, bucket=5000, thread=1, verbose=0)
    whole, quantised = str(tmp_path / "whole"), str(tmp_path / "quantised")
    reference.save_model(whole)
    reference.quantize(dsub=20)
    reference.save_model(quantised)
    size = (len(reference.get_words()) + 5000) * 160
    assert read_model(whole).rows.nbytes == read_model(quantised).rows.nbytes == size
    monkeypatch.setattr("corpusmill.pipeline.memory.available_memory", lambda: size - 1)
    megabytes = f"{size / 1e6:.0f} MB"
    with pytest.raises(
        ValueError, match=f"^its {size // 160:,} quantised rows of 40 numbers take {megabytes} of memory, and {megabytes} are"
    ):
        read_model(quantised)
    read_model(whole)
    monkeypatch.setattr("corpusmill.pipeline.memory.available_memory", lambda: size)
    read_model(quantised)
    monkeypatch.setattr("corpusmill.pipeline.memory.available_memory", lambda: 19_999)
    with pytest.raises(ValueError, match="its dictionary takes . MB of memory, and 0 MB are available"):
        read_model(whole)
